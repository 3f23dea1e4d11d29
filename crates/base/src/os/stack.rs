//! The calling thread's stack, by the tables that each program and library brings for exceptions (`.eh_frame`).
//!
//! ```text
//!   registers --> library at the address --> its table --> rules of the function --> registers of the caller --> ...
//! ```
//!
//! The crate gimli reads the tables. Nothing is allocated or loaded. backtrace(3) would load libgcc_s into the process,
//! which takes 300 KB and a millisecond, and may not be possible when a stack is wanted.

use super::calls;
use super::loader::symbol;
use crate::arch::{self, DWARF_COLUMNS, DWARF_NUMBERS, REGISTERS};
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::{c_int, c_void};
use core::mem::{size_of, transmute, MaybeUninit};
use core::ops::Range;
use core::slice;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation,
    EvaluationResult, EvaluationStorage, Expression, Location, NativeEndian, Piece, Pointer,
    Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
    Value,
};
use libc::{dl_phdr_info, Elf64_Ehdr, Elf64_Phdr, PT_GNU_EH_FRAME, PT_LOAD};

/// The most registers that a function has rules for: a signal's frame has one for each. And the rows that are kept at
/// once, of which one is put aside where a function leaves in its middle.
const RULES: usize = DWARF_COLUMNS + 1;
const ROWS: usize = 3;
/// Bytes of stack that a walk takes at most.
const NEEDED: usize = 8 << 10;
/// Values that an expression has at once, and steps that it takes at most.
const VALUES: usize = 16;
const STEPS: u32 = 1000;

type Bytes = EndianSlice<'static, NativeEndian>;

/// Room for what gimli keeps, on the stack.
struct Fixed;

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

/// Where the calling thread is, and where its functions return to, innermost first. Returns how many: none in a signal
/// handler that has less stack left than it takes to tell.
pub(super) fn tell(places: &mut [usize]) -> usize {
    match calls::left_of_alternate_stack() {
        Some(left) if left < NEEDED => 0,
        _ => walk(places),
    }
}

#[cold]
#[inline(never)]
fn walk(places: &mut [usize]) -> usize {
    let mut frame = Frame::of(arch::registers());
    let mut context = UnwindContext::new_in();
    let mut known = 0;
    for place in places {
        if frame.at == 0 {
            break;
        }
        *place = frame.at;
        known += 1;
        match frame.caller(&mut context) {
            Some(caller) => frame = caller,
            None => break,
        }
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
    fn caller(&self, context: &mut UnwindContext<usize, Fixed>) -> Option<Frame> {
        // The call is before the place that it returns to, which may belong to the next function.
        let at = (self.at - usize::from(!self.interrupted)) as u64;
        let object = Object::at(at as usize)?;
        let start = object.table()?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(start as u64);
        let header = EhFrameHdr::from(object.bytes_from(start)?)
            .parse(&bases, size_of::<usize>() as u8)
            .ok()?;
        let Pointer::Direct(start) = header.eh_frame_ptr() else {
            return None;
        };
        let section = EhFrame::from(object.bytes_from(start as usize)?);
        let bases = bases.set_eh_frame(start);
        let table = header.table()?;
        let function = table
            .fde_for_address(&section, &bases, at, EhFrame::cie_from_offset)
            .ok()?;
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
        // Only a signal handler may run on another stack than what it interrupted.
        let outwards = interrupted || frame > self.registers[DWARF_NUMBERS[1]];
        let result = function.cie().return_address_register();
        let caller = Frame {
            at: *registers.get(usize::from(result.0))?,
            interrupted,
            registers,
        };
        (outwards && caller.at != 0).then_some(caller)
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
    if address == 0 || !address.is_multiple_of(size_of::<usize>()) {
        return None;
    }
    // SAFETY: the compiler's tables say that the function saved a register there, on the stack that it still uses. Where
    // they are wrong, or the stack was written over, this may fault, as does every unwinder.
    Some(unsafe { core::ptr::read_volatile(address as *const usize) })
}

/// What the loader mapped of one file.
struct Object {
    /// What is added to the addresses in its headers.
    base: usize,
    headers: &'static [Elf64_Phdr],
}

impl Object {
    /// The one that `address` lies in.
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
        // SAFETY: an object's first mapped bytes are those of its file, which begins with this header.
        let head = unsafe { &*(found.start as *const Elf64_Ehdr) };
        if head.e_ident[..4] != *b"\x7fELF" {
            return Object::listed(address);
        }
        let first = (found.start + head.e_phoff as usize) as *const Elf64_Phdr;
        // SAFETY: the loader itself reads the file's program headers there.
        let headers = unsafe { slice::from_raw_parts(first, usize::from(head.e_phnum)) };
        let first = headers.iter().find(|header| header.p_type == PT_LOAD)?;
        let base = found
            .start
            .wrapping_sub((first.p_vaddr & !(first.p_align.max(1) - 1)) as usize);
        Some(Object { base, headers })
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
            let object = Object {
                base: info.dlpi_addr as usize,
                // SAFETY: as many headers as the loader says, which stay while the object does.
                headers: unsafe {
                    slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
                },
            };
            let holds = object.segment_of(wanted.address).is_some();
            wanted.found = holds.then_some(object);
            c_int::from(holds)
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

    /// Where the table begins that functions are searched in.
    fn table(&self) -> Option<usize> {
        let mut headers = self.headers.iter();
        let table = headers.find(|header| header.p_type == PT_GNU_EH_FRAME)?;
        Some(self.base.wrapping_add(table.p_vaddr as usize))
    }

    /// The addresses of the segment that `address` lies in.
    fn segment_of(&self, address: usize) -> Option<Range<usize>> {
        let loaded = self
            .headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD);
        let mut spans = loaded.map(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            start..start + header.p_memsz as usize
        });
        spans.find(|span| span.contains(&address))
    }

    /// The bytes from `start` to the end of its segment.
    fn bytes_from(&self, start: usize) -> Option<Bytes> {
        let end = self.segment_of(start)?.end;
        // SAFETY: a segment is mapped and readable as long as its object is, which has a function on this stack. Nobody
        // writes to its tables.
        let bytes = unsafe { slice::from_raw_parts(start as *const u8, end - start) };
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
    use super::*;
    use std::vec::Vec;

    /// What this walk and glibc's say of the same call.
    #[inline(never)]
    fn both() -> [Vec<usize>; 2] {
        let (mut own, mut others) = ([0; 64], [0; 64]);
        let known = walk(&mut own);
        // SAFETY: there is room for 64 addresses.
        let count = unsafe { libc::backtrace(others.as_mut_ptr().cast::<*mut c_void>(), 64) };
        [own[..known].to_vec(), others[..count as usize].to_vec()]
    }

    /// The first of our own lies in `walk`. The next is in `both`, as is glibc's first, at another place.
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

    /// Through the kernel's frame, to the place of the interruption, on the same stack and on another one.
    #[test]
    fn a_stack_leads_out_of_a_signal_handler() {
        for flags in [0, libc::SA_ONSTACK] {
            let stack = std::boxed::Box::leak(std::vec![0_u8; 1 << 18].into_boxed_slice());
            let other = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            // SAFETY: the stack and the handler are there for good, and nobody else uses this signal.
            unsafe {
                let mut before = MaybeUninit::<libc::stack_t>::uninit();
                assert_eq!(libc::sigaltstack(&other, before.as_mut_ptr()), 0);
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = look as *const () as usize;
                action.sa_flags = flags;
                assert_eq!(
                    libc::sigaction(libc::SIGURG, &action, core::ptr::null_mut()),
                    0
                );
                assert_eq!(libc::raise(libc::SIGURG), 0);
                libc::sigaltstack(before.as_ptr(), core::ptr::null_mut());
            }
            assert_same(SEEN.take().expect("the handler ran"));
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
            assert_eq!((one.base, one.table()), (other.base, other.table()));
            assert_eq!(one.segment_of(address), other.segment_of(address));
        }
        assert!(Object::at(8).is_none() && Object::listed(8).is_none());
    }

    extern "C" fn look_on_little(_: c_int) {
        let mut places = [0; 4];
        let known = tell(&mut places);
        SEEN.set(Some([places[..known].to_vec(), Vec::new()]));
    }

    /// A handler's stack that has just about what the kernel's frame takes is not used up.
    #[test]
    fn on_a_small_stack_of_a_handler_nothing_is_told() {
        for (bytes, known) in [(8 << 10, 0), (64 << 10, 4)] {
            let stack = std::boxed::Box::leak(std::vec![0_u8; bytes].into_boxed_slice());
            let other = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            // SAFETY: the stack and the handler are there for good, and nobody else uses this signal.
            unsafe {
                let mut before = MaybeUninit::<libc::stack_t>::uninit();
                assert_eq!(libc::sigaltstack(&other, before.as_mut_ptr()), 0);
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = look_on_little as *const () as usize;
                action.sa_flags = libc::SA_ONSTACK;
                let none = core::ptr::null_mut();
                assert_eq!(libc::sigaction(libc::SIGWINCH, &action, none), 0);
                assert_eq!(libc::raise(libc::SIGWINCH), 0);
                libc::sigaltstack(before.as_ptr(), core::ptr::null_mut());
            }
            let [places, _] = SEEN.take().expect("the handler ran");
            assert_eq!(places.len(), known);
        }
    }

    #[test]
    fn what_is_no_words_address_is_not_read() {
        assert_eq!((word(0), word(12)), (None, None));
    }
}
