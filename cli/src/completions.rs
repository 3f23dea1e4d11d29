//! `slabside completions`: what a shell reads to complete the command line, made of its definition.

use crate::{view, Cli};
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{generate, Shell};

/// Print the script by which a shell completes command lines of slabside
///
/// `make install` and the Debian package install the scripts for bash, zsh and fish. This command is for an
/// installation by cargo.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  slabside completions bash > ~/.local/share/bash-completion/completions/slabside
  slabside completions zsh > ~/.zfunc/_slabside
  slabside completions fish > ~/.config/fish/completions/slabside.fish

Exit status: 0, or 125 if slabside fails.")]
pub struct Args {
    /// The shell that the script is for
    shell: Shell,
}

/// Prints the script on standard output.
pub fn print(args: &Args) -> Result<()> {
    view::print(&script(args.shell)?)
}

fn script(shell: Shell) -> Result<String> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "slabside", &mut text);
    Ok(String::from_utf8(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = script(shell).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {command}");
            }
        }
    }
}
