//! The calling thread's stack, by the tables that each program and library brings for exceptions (`.eh_frame`).
//!
//! ```text
//!   registers --> library at the address --> its table --> rules of the function --> registers of the caller --> ...
//! ```
//!
//! The crate gimli reads the tables. Nothing is allocated or loaded. backtrace(3) would load libgcc_s into the process,
//! which takes 200 KB and a sixth of a millisecond, and may not be possible when a stack is wanted.

use super::calls;
use super::loader::symbol;
use crate::arch::{self, DWARF_COLUMNS, DWARF_NUMBERS, REGISTERS};
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{size_of, transmute, MaybeUninit};
use core::ops::Range;
use core::slice;
use core::sync::atomic::AtomicBool;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation,
    EvaluationResult, EvaluationStorage, Expression, FrameDescriptionEntry, Location, NativeEndian,
    Piece, Pointer, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection,
    UnwindTableRow, Value,
};
use libc::{dl_phdr_info, Elf64_Phdr, PT_GNU_EH_FRAME, PT_LOAD};

/// The most registers that a function has rules for: a signal's frame has one for each. And the rows that are kept at
/// once, of which one is put aside where a function leaves in its middle.
const RULES: usize = DWARF_COLUMNS + 1;
const ROWS: usize = 3;
/// Bytes of stack that a walk takes at most, with what gimli keeps and without. The compiler's optimisation makes it that
/// few.
const NEEDED: usize = if cfg!(debug_assertions) {
    40 << 10
} else {
    6 << 10
};
const NEEDED_BESIDE: usize = NEEDED - size_of::<Context>();
/// Values that an expression has at once, and steps that it takes at most.
const VALUES: usize = 16;
const STEPS: u32 = 1000;

/// Where words may lie: above what no program can map (`vm.mmap_min_addr`), and below the kernel.
const WORDS: Range<usize> = 1 << 16..1 << 56;

type Bytes = EndianSlice<'static, NativeEndian>;

/// Room for what gimli keeps.
struct Fixed;

type Context = UnwindContext<usize, Fixed>;

impl UnwindContextStorage<usize> for Fixed {
    type Rules = [(Register, RegisterRule<usize>); RULES];
    type Stack = [UnwindTableRow<usize, Fixed>; ROWS];
}

impl EvaluationStorage<Bytes> for Fixed {
    type Stack = [Value; VALUES];
    type ExpressionStack = [(Bytes, Bytes); 1];
    type Result = [Piece<Bytes>; 1];
}

/// `_dl_find_object` (glibc 2.35), once it was looked up. By name, since a reference to it would need that version.
#[link_section = ".data"] // See `preload/build.rs`.
static FIND: AtomicUsize = AtomicUsize::new(0);

/// Looks for the function that finds libraries without a lock. May allocate.
pub(super) fn prepare() {
    FIND.store(symbol(c"_dl_find_object") as usize, Relaxed);
}

/// What gimli keeps for one walk at a time. The stack of a signal handler is often of 8 KiB, which has no room for it
/// beside the kernel's frame, nor have those of small coroutines.
struct Spare(UnsafeCell<MaybeUninit<Context>>);

// SAFETY: only who has set `SPARE_TAKEN` touches it.
unsafe impl Sync for Spare {}

static SPARE: Spare = Spare(UnsafeCell::new(MaybeUninit::uninit()));
/// Set while a walk uses [`SPARE`]. No other one waits for it: that takes its own stack.
static SPARE_TAKEN: AtomicBool = AtomicBool::new(false);

/// Where the calling thread's functions return to, innermost first. Returns how many.
pub(super) fn tell(places: &mut [usize]) -> usize {
    tell_within(places, usize::MAX)
}

/// As [`tell`], but nothing in a signal handler that has less stack left than it takes to tell, which the system is asked.
pub(super) fn tell_with_care(places: &mut [usize]) -> usize {
    let left = calls::left_of_alternate_stack();
    tell_within(places, left.unwrap_or(usize::MAX))
}

fn tell_within(places: &mut [usize], left: usize) -> usize {
    if left < NEEDED_BESIDE {
        return 0;
    }
    if SPARE_TAKEN.swap(true, Acquire) {
        return if left < NEEDED { 0 } else { walk_alone(places) };
    }
    // SAFETY: it is this walk's by the flag.
    let spare = unsafe { &mut *SPARE.0.get() };
    let known = walk(places, spare);
    SPARE_TAKEN.store(false, Release);
    known
}

#[cold]
#[inline(never)]
fn walk_alone(places: &mut [usize]) -> usize {
    walk(places, &mut MaybeUninit::uninit())
}

#[cold]
#[inline(never)]
fn walk(places: &mut [usize], context: &mut MaybeUninit<Context>) -> usize {
    let context = context.write(UnwindContext::new_in());
    let mut frame = Frame::of(arch::registers());
    let mut known = 0;
    for place in places {
        let Some(caller) = frame.caller(context) else {
            break;
        };
        *place = caller.at;
        known += 1;
        frame = caller;
    }
    known
}

/// A function that has not returned yet.
struct Frame {
    /// Where it goes on.
    at: usize,
    /// Whether it was interrupted there, and did not call.
    interrupted: bool,
    /// The registers that it finds there by DWARF's numbers, as far as they are known.
    registers: [usize; DWARF_COLUMNS],
}

impl Frame {
    fn of(registers: [usize; REGISTERS]) -> Frame {
        let mut all = [0; DWARF_COLUMNS];
        for (number, value) in DWARF_NUMBERS.into_iter().zip(registers) {
            all[number] = value;
        }
        Frame {
            at: registers[0],
            interrupted: true,
            registers: all,
        }
    }

    /// The function that called it. `None` where that is not known, and for the outermost one.
    fn caller(&self, context: &mut Context) -> Option<Frame> {
        // The call is before the place that it returns to, which may belong to the next function.
        let at = (self.at - usize::from(!self.interrupted)) as u64;
        let (section, bases, function) = Object::at(at as usize)?.function(at)?;
        let row = function
            .unwind_info_for_address(&section, &bases, context, at)
            .ok()?;
        let encoding = function.cie().encoding();
        let read = |expression: &gimli::UnwindExpression<usize>, begin: Option<usize>| {
            self.evaluate(expression.get(&section).ok()?, encoding, begin)
        };
        let frame = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(*register)?.wrapping_add(*offset as usize)
            }
            CfaRule::Expression(expression) => read(expression, None)?,
        };
        let mut registers = self.registers;
        registers[DWARF_NUMBERS[1]] = frame;
        for (register, rule) in row.registers() {
            let Some(place) = registers.get_mut(usize::from(register.0)) else {
                continue; // No address depends on it.
            };
            *place = match rule {
                RegisterRule::Undefined => 0,
                RegisterRule::SameValue => self.register(*register)?,
                RegisterRule::Offset(offset) => word(frame.wrapping_add(*offset as usize))?,
                RegisterRule::ValOffset(offset) => frame.wrapping_add(*offset as usize),
                RegisterRule::Register(other) => self.register(*other)?,
                RegisterRule::Expression(expression) => word(read(expression, Some(frame))?)?,
                RegisterRule::ValExpression(expression) => read(expression, Some(frame))?,
                _ => return None,
            };
        }
        let interrupted = function.is_signal_trampoline();
        // Functions that change stacks have rules that lead back, inwards too. A call has taken some stack at least.
        let moves = interrupted || frame != self.registers[DWARF_NUMBERS[1]];
        let result = function.cie().return_address_register();
        let caller = Frame {
            at: *registers.get(usize::from(result.0))?,
            interrupted,
            registers,
        };
        (moves && caller.at != 0).then_some(caller)
    }

    fn register(&self, register: Register) -> Option<usize> {
        self.registers.get(usize::from(register.0)).copied()
    }

    /// The address that an expression computes. `begin` is what it begins with.
    fn evaluate(
        &self,
        expression: Expression<Bytes>,
        encoding: Encoding,
        begin: Option<usize>,
    ) -> Option<usize> {
        let mut run = Evaluation::<Bytes, Fixed>::new_in(expression.0, encoding);
        run.set_max_iterations(STEPS);
        if let Some(begin) = begin {
            run.set_initial_value(begin as u64);
        }
        let mut state = run.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    run.resume_with_register(Value::Generic(self.register(register)? as u64))
                }
                EvaluationResult::RequiresMemory { address, .. } => {
                    run.resume_with_memory(Value::Generic(word(address as usize)? as u64))
                }
                _ => return None,
            }
            .ok()?;
        }
        match run.as_result() {
            [Piece {
                location: Location::Address { address },
                ..
            }] => Some(*address as usize),
            _ => None,
        }
    }
}

/// The word at `address`, which the rules of a function lead to. `None` for what is no word's address.
fn word(address: usize) -> Option<usize> {
    if !WORDS.contains(&address) || !address.is_multiple_of(size_of::<usize>()) {
        return None;
    }
    // SAFETY: the compiler's tables say that the function saved a register there, on the stack that it still uses. Where
    // they are wrong, or the stack was written over, this may fault, as does every unwinder.
    Some(unsafe { core::ptr::read_volatile(address as *const usize) })
}

/// What the loader mapped of one file.
struct Object {
    /// Where the table begins that functions are searched in.
    table: usize,
    /// The addresses of the first segment to the last one. What lies between two may not be mapped.
    span: Range<usize>,
}

impl Object {
    /// The one that `address` lies in. `None` too where it has no table.
    fn at(address: usize) -> Option<Object> {
        let find = FIND.load(Relaxed);
        if find == 0 {
            return Object::listed(address);
        }
        // SAFETY: `prepare` found the function under its name. Its type is that of glibc's <dlfcn.h>.
        let find: FindObject = unsafe { transmute(find) };
        let mut found = MaybeUninit::<Found>::zeroed();
        // SAFETY: looks an address up, without a lock, and writes what it found.
        let found = unsafe {
            if find(address as *mut c_void, found.as_mut_ptr()) != 0 {
                return None;
            }
            found.assume_init()
        };
        // The loader has read the file's headers, which need not be mapped.
        let object = Object {
            table: found.eh_frame as usize,
            span: found.start..found.end,
        };
        // Where the segments lie apart, the span is that of one.
        match object.table == 0 || object.span.contains(&object.table) {
            true => (object.table != 0).then_some(object),
            false => Object::listed(address),
        }
    }

    /// As [`Object::at`], from the loader's list, whose lock it takes.
    fn listed(address: usize) -> Option<Object> {
        struct Wanted {
            address: usize,
            found: Option<Object>,
        }
        unsafe extern "C" fn look(
            info: *mut dl_phdr_info,
            _: libc::size_t,
            data: *mut c_void,
        ) -> c_int {
            // SAFETY: the loader tells of an object, and `data` is what `listed` gave it.
            let (info, wanted) = unsafe { (&*info, &mut *data.cast::<Wanted>()) };
            if info.dlpi_phdr.is_null() {
                return 0;
            }
            // SAFETY: as many headers as the loader says, which stay while the object does.
            let headers =
                unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
            let of = |kind| headers.iter().filter(move |header| header.p_type == kind);
            let start = |header: &Elf64_Phdr| {
                (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize)
            };
            let segments =
                || of(PT_LOAD).map(|header| start(header)..start(header) + header.p_memsz as usize);
            if !segments().any(|segment| segment.contains(&wanted.address)) {
                return 0;
            }
            let span = segments()
                .reduce(|all, segment| all.start.min(segment.start)..all.end.max(segment.end));
            let table = of(PT_GNU_EH_FRAME).next().map(start);
            wanted.found = table.zip(span).map(|(table, span)| Object { table, span });
            1
        }
        let list = weak!("dl_iterate_phdr");
        if list == 0 {
            return None;
        }
        // SAFETY: the symbol's type is that of dl_iterate_phdr(3).
        let list: IteratePhdr = unsafe { transmute(list) };
        let mut wanted = Wanted {
            address,
            found: None,
        };
        // SAFETY: the callback takes what is given along, which lives until the call returns.
        unsafe { list(look, (&raw mut wanted).cast()) };
        wanted.found
    }

    /// The rules of the function that `at` lies in, and where they are read.
    #[inline(never)] // What it keeps on the stack is gone when the rules are followed.
    fn function(
        &self,
        at: u64,
    ) -> Option<(EhFrame<Bytes>, BaseAddresses, FrameDescriptionEntry<Bytes>)> {
        let bases = BaseAddresses::default().set_eh_frame_hdr(self.table as u64);
        let header = EhFrameHdr::from(self.bytes_from(self.table)?)
            .parse(&bases, size_of::<usize>() as u8)
            .ok()?;
        let Pointer::Direct(start) = header.eh_frame_ptr() else {
            return None;
        };
        let section = EhFrame::from(self.bytes_from(start as usize)?);
        let bases = bases.set_eh_frame(start);
        let function = header
            .table()?
            .fde_for_address(&section, &bases, at, EhFrame::cie_from_offset)
            .ok()?;
        Some((section, bases, function))
    }

    /// The bytes from `start` to the object's end.
    fn bytes_from(&self, start: usize) -> Option<Bytes> {
        if !self.span.contains(&start) {
            return None;
        }
        // SAFETY: the tables in a segment are mapped and readable as long as its object is, which has a function on this
        // stack. Nobody writes to them, and they lead to nothing outside of them.
        let bytes = unsafe { slice::from_raw_parts(start as *const u8, self.span.end - start) };
        Some(EndianSlice::new(bytes, NativeEndian))
    }
}

/// `struct dl_find_object` of glibc's <dlfcn.h>, which has one word more on no machine that is provided for.
#[repr(C)]
struct Found {
    flags: u64,
    start: usize,
    end: usize,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;
type Look = unsafe extern "C" fn(*mut dl_phdr_info, libc::size_t, *mut c_void) -> c_int;
type IteratePhdr = unsafe extern "C" fn(Look, *mut c_void) -> c_int;

#[cfg(all(
    test,
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    not(miri)
))]
mod tests {
    use super::super::process::auxiliary_value;
    use super::*;
    use std::vec::Vec;

    /// What this walk and glibc's say of the same call.
    #[inline(never)]
    fn both() -> [Vec<usize>; 2] {
        let (mut own, mut others) = ([0; 64], [0; 64]);
        let known = walk_alone(&mut own);
        // SAFETY: there is room for 64 addresses.
        let count = unsafe { libc::backtrace(others.as_mut_ptr().cast::<*mut c_void>(), 64) };
        [own[..known].to_vec(), others[..count as usize].to_vec()]
    }

    /// The first of our own lies in `walk_alone`. The next is in `both`, as is glibc's first, at another place.
    #[track_caller]
    fn assert_same([own, others]: [Vec<usize>; 2]) {
        assert!(own.len() > 3, "{own:x?}");
        assert_eq!(own[2..], others[1..]);
    }

    #[test]
    fn a_stack_is_the_one_that_glibc_tells() {
        assert_same(both());
        let from_a_thread = std::thread::spawn(both).join();
        assert_same(from_a_thread.expect("it ends"));
    }

    std::thread_local! {
        static SEEN: core::cell::RefCell<Option<[Vec<usize>; 2]>> =
            const { core::cell::RefCell::new(None) };
    }

    extern "C" fn look(_: c_int) {
        SEEN.set(Some(both()));
    }

    /// What `handler` notes of a `signal` of its own, with another stack of so many bytes. `flags` say whether it runs there.
    fn noted(
        signal: c_int,
        handler: extern "C" fn(c_int),
        flags: c_int,
        bytes: usize,
    ) -> [Vec<usize>; 2] {
        let stack = std::boxed::Box::leak(std::vec![0_u8; bytes].into_boxed_slice());
        let other = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: stack.len(),
        };
        let none = core::ptr::null_mut();
        // SAFETY: the stack and the handler are there for good, and nobody else uses the signal.
        unsafe {
            let mut before = MaybeUninit::<libc::stack_t>::uninit();
            assert_eq!(libc::sigaltstack(&other, before.as_mut_ptr()), 0);
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = flags;
            assert_eq!(libc::sigaction(signal, &action, none), 0);
            assert_eq!(libc::raise(signal), 0);
            libc::sigaltstack(before.as_ptr(), core::ptr::null_mut());
        }
        SEEN.take().expect("the handler ran")
    }

    /// Through the kernel's frame, to the place of the interruption, on the same stack and on another one.
    #[test]
    fn a_stack_leads_out_of_a_signal_handler() {
        for flags in [0, libc::SA_ONSTACK] {
            assert_same(noted(libc::SIGURG, look, flags, 1 << 18));
        }
    }

    #[test]
    fn the_loaders_list_tells_the_same_of_an_address() {
        prepare();
        for address in [
            walk as *const () as usize,
            libc::qsort as *const () as usize,
            libc::raise as *const () as usize,
        ] {
            let (one, other) = (Object::at(address), Object::listed(address));
            let (one, other) = (one.expect("loaded"), other.expect("listed"));
            assert_eq!(one.table, other.table);
            assert!(one.span.contains(&address) && other.span.contains(&address));
        }
        assert!(Object::at(8).is_none() && Object::listed(8).is_none());
    }

    /// What getauxval(3) tells the size of the kernel's frame by.
    const AT_MINSIGSTKSZ: usize = 51;

    extern "C" fn look_on_little(_: c_int) {
        let mut places = [0; 4];
        let known = tell_with_care(&mut places);
        SEEN.set(Some([places[..known].to_vec(), Vec::new()]));
    }

    /// A handler's stack that has little more than what the kernel's frame takes is not used up.
    #[test]
    fn on_a_small_stack_of_a_handler_nothing_is_told() {
        let frame = auxiliary_value(AT_MINSIGSTKSZ).unwrap_or(2048);
        for (bytes, known) in [(frame + NEEDED_BESIDE / 2, 0), (frame + (64 << 10), 4)] {
            let [places, _] = noted(libc::SIGWINCH, look_on_little, libc::SA_ONSTACK, bytes);
            assert_eq!(places.len(), known);
        }
    }

    #[test]
    fn what_is_no_words_address_is_not_read() {
        for address in [0, 12, 16, 1 << 60, usize::MAX - 7] {
            assert_eq!(word(address), None);
        }
        let here = [5_usize];
        assert_eq!(word(here.as_ptr() as usize), Some(5));
    }
}
