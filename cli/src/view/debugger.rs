//! `slabside gdb-script` and `lldb-script`: a command `slabside ADDR` for debuggers, that calls `slabside explain` on
//! the process or the core file that is open.

use super::{print, statuses};
use anyhow::{Context, Result};

/// Print a script that gives gdb the command `slabside ADDRESS...`
///
/// The new command runs `slabside explain` on the process or core file that gdb has open. Without an address it explains
/// the crash of a core file.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside gdb-script > slabside.gdb
  gdb -x slabside.gdb -p 7444
  slabside gdb-script >> ~/.gdbinit

", statuses!("0")))]
pub struct GdbArgs {}

/// Print a script that gives lldb the command `slabside ADDRESS...`
///
/// The new command runs `slabside explain` on the process or core file that lldb has open.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside lldb-script > slabside.py
  lldb -o 'command script import slabside.py' -p 7444

", statuses!("0")))]
pub struct LldbArgs {}

const GDB: &str = r#"python
import gdb, re, subprocess

class Slabside(gdb.Command):
    """slabside ADDRESS...: what the heap knows of addresses (any expression of gdb's).
Without one, in a core file: what the program faulted at, and each register that leads into the heap."""

    def __init__(self):
        super().__init__("slabside", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, text, tty):
        core = re.search(r"Local core dump file:\s*`(.*?)', file type", gdb.execute("info files", to_string=True), re.S)
        target = core.group(1) if core else str(gdb.selected_inferior().pid)
        if target == "0":
            raise gdb.GdbError("slabside: nothing runs, and no core file is open")
        pointer = gdb.lookup_type("unsigned long")
        wanted = [hex(int(gdb.parse_and_eval(word).cast(pointer))) for word in gdb.string_to_argv(text)]
        done = subprocess.run([PROGRAM, "explain", target] + (wanted or ["--fault"]), capture_output=True, text=True)
        gdb.write(done.stdout)
        if done.returncode:
            raise gdb.GdbError(done.stderr.strip())

Slabside()
end
"#;

const LLDB: &str = r#"import lldb, shlex, subprocess

def slabside(debugger, text, result, _):
    """slabside ADDRESS...: what the heap knows of addresses (any expression of lldb's)."""
    target = debugger.GetSelectedTarget()
    process = target.GetProcess()
    name = str(process.GetProcessID())
    core = process.GetCoreFile() if hasattr(process, "GetCoreFile") else None
    if core is not None and core.IsValid():
        name = core.fullpath
    frame = process.GetSelectedThread().GetSelectedFrame()
    wanted = [hex(frame.EvaluateExpression("(unsigned long)(%s)" % word).GetValueAsUnsigned()) for word in shlex.split(text)]
    done = subprocess.run([PROGRAM, "explain", name] + (wanted or ["--fault"]), capture_output=True, text=True)
    result.AppendMessage(done.stdout.rstrip())
    if done.returncode:
        result.SetError(done.stderr.strip())

def __lldb_init_module(debugger, _):
    debugger.HandleCommand("command script add -f %s.slabside slabside" % __name__)
"#;

/// The script with this very command in it, so that it need not be in PATH.
fn with_command(script: &str) -> Result<String> {
    let own = std::env::current_exe().context("cannot tell where the slabside command lies")?;
    let quoted = serde_json::to_string(&own.to_string_lossy())?;
    Ok(script.replace("PROGRAM", &quoted))
}

/// Prints the script for gdb.
pub fn gdb(_: &GdbArgs) -> Result<()> {
    print(&with_command(GDB)?)
}

/// Prints the script for lldb.
pub fn lldb(_: &LldbArgs) -> Result<()> {
    print(&with_command(LLDB)?)
}
