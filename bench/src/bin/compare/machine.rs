//! What the comparison was run on, and when.

use std::process::Command;

/// The first line that a command prints. Empty if it cannot be run.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// What stands after `label` and a colon in a file of /proc.
fn field(path: &str, label: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(label))
        .unwrap_or_default();
    line.split_once(':')
        .map_or("", |(_, value)| value.trim())
        .to_owned()
}

/// Today's date.
pub fn date() -> String {
    first_line("date", &["+%Y-%m-%d"])
}

/// The load average of the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Processor, memory and kernel in one line.
pub fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let memory = field("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap_or(0)
        >> 20;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let processor = field("/proc/cpuinfo", "model name");
    let virtual_machine = if field("/proc/cpuinfo", "flags").contains("hypervisor") {
        ", virtual machine"
    } else {
        ""
    };
    format!("{processor}, {cores} cores, {memory} GiB{virtual_machine}, Linux {kernel}")
}

/// The compiler that built the benchmarks, as far as the one in the path is that.
pub fn compiler() -> String {
    first_line("rustc", &["--version"])
}
