//! `slabside explain`: what an address is to the heap. Of a core file also a register or what it faulted at.

use super::{grouped, json, place, print, statuses, Common, Read};
use anyhow::{bail, Result};
use serde::Serialize;
use slabside_view::explain::{explain, Explanation};
use slabside_view::holders::{holders, Holder};
use slabside_view::profile::{by_address, Sample};
use slabside_view::source::{About, Source, Span, Thread};
use slabside_view::types::Types;
use slabside_view::unwind::{Frame, Unwinder};
use std::collections::HashMap;
use std::fmt::Write;

/// Pointers to a block that are listed.
const HOLDERS: usize = 8;
/// Signals of an address that cannot be touched.
const SEGV: u32 = libc::SIGSEGV as u32;
const BUS: u32 = libc::SIGBUS as u32;

/// Explain what an address is: a live block, a free slot, a free page, bookkeeping, or nothing of the heap's
///
/// For a block it prints the size, the slab, the neighbours and their first words. With these one can tell whether a
/// pointer that a program crashed on was freed, is too large, or never was a block. If the block is a sample of the heap
/// profile, the functions that allocated it are listed.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Addresses: hexadecimal numbers, with 0x or without, or names of registers such as '$rdi'. The registers are those of \
the thread that crashed; of a process that is read with --stop, those of its first thread.

Examples:
  slabside explain 7444 0x5645df8dee38
  slabside explain core '$rdi'
  slabside explain core --fault

", statuses!("0")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file
    target: String,

    /// Addresses, or names of registers
    #[arg(value_name = "ADDR|$REG")]
    addresses: Vec<String>,

    /// Explain the address that the program faulted at, and each register that leads into the heap
    #[arg(long)]
    fault: bool,

    /// Tell who points to a block: one pass over all that the program can write
    #[arg(long)]
    who: bool,

    /// Print none of the program's data, and no types, which are told by it
    #[arg(long)]
    no_contents: bool,

    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    pid: u32,
    program: String,
    signal: Option<u32>,
    fault: Option<u64>,
    addresses: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    /// How it was given, if as a register.
    name: Option<String>,
    #[serde(flatten)]
    told: Explanation,
    /// The functions that allocated the block, or had it last, where it was sampled. Innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated: Option<Vec<Frame>>,
    /// What points to the block, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    holders: Option<Vec<Holder>>,
}

/// Prints the explanations.
pub fn run(args: &Args) -> Result<()> {
    if args.addresses.is_empty() && !args.fault {
        bail!("give an address, a register such as '$rdi', or --fault");
    }
    let mut read = Read::holding(&args.target, &args.common)?;
    if args.who {
        read.target.needs_contents()?;
    }
    let (about, threads) = (read.target.about(), read.target.threads());
    let mut wanted = Vec::new();
    for given in &args.addresses {
        wanted.push(address(given, &threads)?);
    }
    if args.fault {
        wanted.extend(faults(&read, &about, &threads)?);
    }
    let mut types = Types::new();
    let mut addresses: Vec<Named> = wanted
        .into_iter()
        .filter_map(|(name, address)| {
            let heap = read.heap_of(address)?;
            let looks = !args.no_contents;
            let told = explain(&*read.target, heap, &mut types, address, looks);
            Some(Named {
                name,
                told,
                allocated: None,
                holders: None,
            })
        })
        .collect();
    if args.who {
        find_holders(&read, &mut types, &mut addresses, !args.no_contents);
    }
    let sampled = samples(&read);
    read.target.release();
    let mut unwinder = None;
    for named in &mut addresses {
        let block = named.told.block.filter(|_| named.told.what != "kept");
        // Several addresses may lie in one block.
        let sample = block.and_then(|block| sampled.get(&block.address));
        named.allocated = sample.map(|sample| {
            let source: &dyn Source = &*read.target;
            let unwinder = unwinder.get_or_insert_with(|| Unwinder::new(source));
            unwinder.stack(sample).to_vec()
        });
    }
    if args.common.json {
        return print(&json(&Report {
            schema: "slabside.explain/1",
            pid: about.pid,
            program: about.program,
            signal: about.signal,
            fault: about.fault,
            addresses,
        })?);
    }
    let mut text = String::new();
    if args.fault {
        text += &ended(&about);
    }
    for named in &addresses {
        text += &tell(named);
    }
    print(&text)
}

/// Looks for what points to the blocks, in one pass for all.
fn find_holders(read: &Read, types: &mut Types, addresses: &mut [Named], looks: bool) {
    let mut asked: Vec<(Span, &mut Named)> = addresses
        .iter_mut()
        .filter_map(|named| {
            let block = named.told.block?;
            let (start, end) = (block.address, block.address + block.bytes);
            Some((Span { start, end }, named))
        })
        .collect();
    let blocks: Vec<Span> = asked.iter().map(|one| one.0).collect();
    let found = holders(&*read.target, &read.heaps, types, &blocks, looks);
    for ((_, named), found) in asked.iter_mut().zip(found) {
        named.holders = Some(found);
    }
}

/// The samples of the heap profile that have not ended, by their blocks' addresses.
fn samples(read: &Read) -> HashMap<u64, Sample> {
    let heaps = read.heaps.iter();
    heaps
        .flat_map(|heap| by_address(&*read.target, &heap.region))
        .collect()
}

/// How a core file's program ended.
fn ended(about: &About) -> String {
    match (about.signal, about.fault) {
        (Some(signal), Some(fault)) => {
            format!("{} ended by signal {signal} at {fault:#x}\n", about.program)
        }
        (Some(signal @ (SEGV | BUS)), None) => format!(
            "{} ended by signal {signal} at an unknown address: one that no program has, or a process sent the signal\n",
            about.program
        ),
        (Some(signal), None) => format!(
            "{} ended by signal {signal}, which names no address\n",
            about.program
        ),
        _ => String::new(),
    }
}

/// An address as it is written, or a register's value and name.
fn address(given: &str, threads: &[Thread]) -> Result<(Option<String>, u64)> {
    if let Some(name) = given.strip_prefix('$') {
        let Some(thread) = threads
            .first()
            .filter(|thread| !thread.registers.is_empty())
        else {
            bail!("'{given}': no registers are known: of a process --stop reads them");
        };
        let found = thread.registers.iter().find(|register| register.0 == name);
        return match found {
            Some((_, value)) => Ok((Some(given.into()), *value)),
            None => bail!("'{given}': there is no such register"),
        };
    }
    let digits = given.strip_prefix("0x").unwrap_or(given);
    match u64::from_str_radix(digits, 16) {
        Ok(address) => Ok((None, address)),
        Err(_) => bail!("'{given}' is neither an address nor a register"),
    }
}

/// Where the program faulted, and the registers that lead into the heap.
fn faults(read: &Read, about: &About, threads: &[Thread]) -> Result<Vec<(Option<String>, u64)>> {
    let Some(first) = threads
        .first()
        .filter(|thread| !thread.registers.is_empty())
    else {
        bail!("--fault: no registers are known: it is for core files, and processes with --stop");
    };
    let mut found: Vec<_> = about
        .fault
        .map(|fault| (Some("fault".to_string()), fault))
        .into_iter()
        .collect();
    for (name, value) in &first.registers {
        let ours = read.heaps.iter().any(|heap| {
            heap.slab_at(*value).is_some()
                || heap.large_at(*value).is_some()
                || heap.kept_at(*value).is_some()
                || heap.window_at(*value).is_some()
                || heap.region.span().holds(*value)
        });
        if ours {
            found.push((Some(format!("${name}")), *value));
        }
    }
    Ok(found)
}

fn tell(named: &Named) -> String {
    let told = &named.told;
    let mut text = String::new();
    if let Some(name) = &named.name {
        let _ = write!(text, "{name} = ");
    }
    let _ = writeln!(text, "{:#x}: {}", told.address, told.line);
    if let Some(slab) = &told.slab {
        let kind = if slab.span { "span" } else { "slab" };
        let also = |number, what| match number {
            0 => String::new(),
            n => format!(", {n} {what}"),
        };
        let waiting = also(slab.waiting, "waiting") + &also(slab.quarantined, "in a quarantine");
        let _ = writeln!(
            text,
            "  {kind} of {} bytes at {:#x}, slot {} of {} ({} live{waiting}), {}, of {}",
            grouped(slab.size),
            slab.address,
            slab.slot,
            slab.slots,
            slab.live,
            slab.state,
            slab.owner
        );
    }
    if let Some(block) = told.block.filter(|_| told.what == "live") {
        let asked = match block.asked {
            Some(asked) => format!("{} bytes", grouped(asked)),
            None => "not kept (hardened only)".into(),
        };
        let _ = writeln!(text, "  asked for: {asked}");
    }
    if let Some(stack) = &named.allocated {
        let when = match told.what {
            "live" | "large" => "allocated by",
            _ => "last allocated by",
        };
        for (index, frame) in stack.iter().enumerate() {
            let title = if index == 0 { when } else { "" };
            let width = when.len();
            let _ = writeln!(text, "  {title:width$} {}", place(frame));
        }
    }
    if let Some(holders) = &named.holders {
        if holders.is_empty() {
            text += "  held by: nobody (no word that the program can write points to it)\n";
        }
        for holder in holders.iter().take(HOLDERS) {
            let _ = writeln!(text, "  held by: {:#x} in {}", holder.at, holder.place);
        }
        if holders.len() > HOLDERS {
            let _ = writeln!(text, "  and {} more", holders.len() - HOLDERS);
        }
    }
    let states = told.slots.iter().map(|slot| slot.state.len());
    let width = states.max().unwrap_or(0).max("waiting".len());
    for slot in &told.slots {
        let own = told
            .slab
            .as_ref()
            .is_some_and(|slab| slab.slot == slot.slot);
        let words: Vec<String> = slot.words.iter().map(|word| format!("{word:x}")).collect();
        let line = format!(
            "  {} slot {} {:#x} {:width$} {:40} {}",
            if own { '>' } else { ' ' },
            slot.slot,
            slot.address,
            slot.state,
            words.join(" "),
            slot.looks
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let near = |side: &str, block: &slabside_view::explain::Block| {
        format!(
            "  nearest live block {side}: {} bytes at {:#x}\n",
            grouped(block.bytes),
            block.address
        )
    };
    text.extend(told.before.iter().map(|block| near("below", block)));
    text.extend(told.after.iter().map(|block| near("above", block)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Vec<Thread> {
        vec![Thread {
            registers: vec![("rdi".into(), 0x1234)],
            ..Thread::default()
        }]
    }

    #[test]
    fn addresses_are_hexadecimal_or_registers() {
        assert_eq!(address("0x10", &[]).unwrap(), (None, 16));
        assert_eq!(address("ff", &[]).unwrap(), (None, 255));
        let rdi = (Some("$rdi".to_string()), 0x1234);
        assert_eq!(address("$rdi", &threads()).unwrap(), rdi);
        assert!(address("$xyz", &threads()).is_err());
        assert!(address("$rdi", &[]).is_err());
        assert!(address("zebra", &[]).is_err());
    }

    #[test]
    fn a_core_says_how_it_ended() {
        let about = About {
            program: "prog".into(),
            signal: Some(11),
            fault: Some(0x10),
            ..About::default()
        };
        assert_eq!(ended(&about), "prog ended by signal 11 at 0x10\n");
        let about = About {
            fault: None,
            ..about
        };
        assert!(ended(&about).contains("signal 11 at an unknown address"));
        let about = About {
            signal: Some(6),
            ..about
        };
        assert!(ended(&about).contains("names no address"));
    }
}
