//! Every function that C and C++ programs see, stated once.
//!
//! ```text
//!   [names in the place of the system's] [names of our own] the function here, its arguments and result
//! ```
//!
//! A word before the first list says how the names in the system's place are made:
//!
//! * `throwing`: by assembly that an exception can pass through.
//! * `jump(basic)`: a jump to what that name stands for in the process.
//! * `after(basic ...)`: the function asks whether what it ends in is ours (`forms`).
//!
//! `capi` exports the second list of each row. `preload` exports both, so that a program that runs on it can ask about
//! its heap. [`EXPORTS`] has the names for those who compare them (tests/exports.rs does).

/// Hands the table to the macro `$with`, in the form `$form`: `plain`, `prefixed` or `names`.
#[doc(hidden)]
#[macro_export]
macro_rules! c_interface {
    ($form:ident) => {
        $crate::c_interface_rows! { $form
            // C and POSIX
            [malloc __libc_malloc] [slabside_malloc] c::malloc(size: usize) -> *mut u8;
            [calloc __libc_calloc] [slabside_calloc]
                c::calloc(count: usize, size: usize) -> *mut u8;
            [realloc __libc_realloc] [slabside_realloc]
                c::realloc(block: *mut u8, size: usize) -> *mut u8;
            after(realloc) [reallocarray] [slabside_reallocarray]
                c::reallocarray(block: *mut u8, count: usize, size: usize) -> *mut u8;
            [free __libc_free _ZdlPv] [slabside_free] c::free(block: *mut u8);
            jump(free) [cfree] [] c::free(block: *mut u8);
            after(free) [free_sized] [slabside_free_sized]
                c::free_sized(block: *mut u8, size: usize);
            after(free) [free_aligned_sized] [slabside_free_aligned_sized]
                c::free_aligned_sized(block: *mut u8, align: usize, size: usize);
            [aligned_alloc] [slabside_aligned_alloc]
                c::aligned_alloc(align: usize, size: usize) -> *mut u8;
            [memalign __libc_memalign] [slabside_memalign]
                c::memalign(align: usize, size: usize) -> *mut u8;
            [posix_memalign __posix_memalign] [slabside_posix_memalign]
                c::posix_memalign(place: *mut *mut u8, align: usize, size: usize) -> c_int;
            [valloc __libc_valloc] [slabside_valloc] c::valloc(size: usize) -> *mut u8;
            [pvalloc __libc_pvalloc] [slabside_pvalloc] c::pvalloc(size: usize) -> *mut u8;
            after(free) [malloc_usable_size] [slabside_usable_size]
                c::usable_size_of_any(block: *const u8) -> usize;

            // glibc
            [malloc_trim] [slabside_malloc_trim] glibc::malloc_trim(pad: usize) -> c_int;
            [mallinfo __libc_mallinfo] [slabside_mallinfo] glibc::mallinfo() -> MallInfo<c_int>;
            [mallinfo2] [slabside_mallinfo2] glibc::mallinfo2() -> MallInfo<usize>;
            [malloc_info] [slabside_malloc_info]
                glibc::malloc_info(options: c_int, stream: *mut c_void) -> c_int;
            [malloc_stats] [slabside_malloc_stats] glibc::malloc_stats();
            [mallopt __libc_mallopt] [slabside_mallopt]
                glibc::mallopt(parameter: c_int, value: c_int) -> c_int;

            // C++: new without exceptions, and delete
            after(_Znwm) [_ZnwmRKSt9nothrow_t] []
                cpp::new_nothrow(size: usize, tag: *const c_void) -> *mut u8;
            after(_Znam _Znwm) [_ZnamRKSt9nothrow_t] []
                cpp::new_array_nothrow(size: usize, tag: *const c_void) -> *mut u8;
            after(_ZnwmSt11align_val_t) [_ZnwmSt11align_val_tRKSt9nothrow_t] []
                cpp::new_aligned_nothrow(
                    size: usize, align: usize, tag: *const c_void) -> *mut u8;
            after(_ZnamSt11align_val_t _ZnwmSt11align_val_t)
                [_ZnamSt11align_val_tRKSt9nothrow_t] []
                cpp::new_array_aligned_nothrow(
                    size: usize, align: usize, tag: *const c_void) -> *mut u8;
            jump(_ZdlPv) [_ZdaPv _ZdlPvRKSt9nothrow_t] [] c::free(block: *mut u8);
            jump(_ZdaPv) [_ZdaPvRKSt9nothrow_t] [] c::free(block: *mut u8);
            after(_ZdlPv) [_ZdlPvm] [] cpp::delete_sized(block: *mut u8, size: usize);
            after(_ZdaPv _ZdlPv) [_ZdaPvm] [] cpp::delete_sized(block: *mut u8, size: usize);
            [_ZdlPvSt11align_val_t] [] cpp::delete_aligned(block: *mut u8, align: usize);
            jump(_ZdlPvSt11align_val_t)
                [_ZdaPvSt11align_val_t _ZdlPvSt11align_val_tRKSt9nothrow_t] []
                cpp::delete_aligned(block: *mut u8, align: usize);
            jump(_ZdaPvSt11align_val_t) [_ZdaPvSt11align_val_tRKSt9nothrow_t] []
                cpp::delete_aligned(block: *mut u8, align: usize);
            after(_ZdlPvSt11align_val_t) [_ZdlPvmSt11align_val_t] []
                cpp::delete_sized_aligned(block: *mut u8, size: usize, align: usize);
            after(_ZdaPvSt11align_val_t _ZdlPvSt11align_val_t) [_ZdaPvmSt11align_val_t] []
                cpp::delete_sized_aligned(block: *mut u8, size: usize, align: usize);

            // our own
            [] [slabside_good_size] c::good_size(size: usize) -> usize;
            [] [slabside_malloc_at_least]
                c::malloc_at_least(size: usize, usable: *mut usize) -> *mut u8;
            [] [slabside_zalloc] c::zalloc(size: usize) -> *mut u8;
            [] [slabside_aligned_realloc]
                c::aligned_realloc(block: *mut u8, align: usize, size: usize) -> *mut u8;
            [] [slabside_try_expand] c::try_expand(block: *mut u8, size: usize) -> bool;
            [] [slabside_heap_create] heaps::heap_create() -> *mut OpaqueHeap;
            [] [slabside_heap_destroy] heaps::heap_destroy(heap: *mut OpaqueHeap);
            [] [slabside_heap_malloc]
                heaps::heap_malloc(heap: *mut OpaqueHeap, size: usize) -> *mut u8;
            [] [slabside_heap_calloc]
                heaps::heap_calloc(heap: *mut OpaqueHeap, count: usize, size: usize) -> *mut u8;
            [] [slabside_heap_aligned_alloc]
                heaps::heap_aligned_alloc(
                    heap: *mut OpaqueHeap, align: usize, size: usize) -> *mut u8;
            [] [slabside_heap_realloc]
                heaps::heap_realloc(
                    heap: *mut OpaqueHeap, block: *mut u8, size: usize) -> *mut u8;
            [] [slabside_option_set]
                c::option_set(name: *const c_char, value: *const c_char) -> c_int;
            [] [slabside_profile] c::profile(interval: usize) -> usize;
            [] [slabside_should_move] c::should_move(block: *const u8) -> bool;
            [] [slabside_occupancy] c::occupancy(block: *const u8, figures: *mut Occupancy);
            [] [slabside_stats] c::stats_to(figures: *mut Stats);
            [] [slabside_validate] c::validate() -> usize;

            // C++: new with exceptions
            throwing [_Znwm] [slabside_new] cpp::new_block(size);
            jump(_Znwm) [_Znam] [] cpp::new_block(size: usize) -> *mut u8;
            throwing [_ZnwmSt11align_val_t] [slabside_new_aligned]
                cpp::new_aligned_block(size, align);
            jump(_ZnwmSt11align_val_t) [_ZnamSt11align_val_t] []
                cpp::new_aligned_block(size: usize, align: usize) -> *mut u8;
        }
    };
}

/// Takes the rows of `c_interface`: their names as a list, or a function each.
#[doc(hidden)]
#[macro_export]
macro_rules! c_interface_rows {
    (names $($($kind:ident $(($($basic:ident)+))?)? [$($plain:ident)*] [$($prefixed:ident)*]
        $module:ident::$function:ident($($arguments:tt)*) $(-> $result:ty)?;)*) => {
        &[$((
            &[$(stringify!($plain)),*],
            &[$(stringify!($prefixed)),*],
        )),*]
    };
    ($form:ident $($($kind:ident $(($($basic:ident)+))?)? [$($plain:ident)*] [$($prefixed:ident)*]
        $module:ident::$function:ident($($arguments:tt)*) $(-> $result:ty)?;)*) => {
        $($crate::c_interface_row! { $form [$($plain)*] [$($prefixed)*]
            $($kind $(($($basic)+))?)?
            $module::$function($($arguments)*) $(-> $result)? })*
    };
}

/// Exports one row's function under the names of the form.
#[doc(hidden)]
#[macro_export]
macro_rules! c_interface_row {
    (prefixed [$($plain:ident)*] [] $($function:tt)*) => {};
    (prefixed [$($plain:ident)*] [$($name:ident)*] after($($basic:ident)+) $($function:tt)*) => {
        $crate::c_function! { [$($name)*] after() $($function)* }
    };
    (plain [$($name:ident)*] [$($prefixed:ident)*] after($($basic:ident)+) $($function:tt)*) => {
        $crate::c_function! { [$($name)*] after($($basic)+) $($function)* }
        $crate::c_function! { [$($prefixed)*] after() $($function)* }
    };
    (plain [$($name:ident)*] [$($prefixed:ident)*] $($function:tt)*) => {
        $crate::c_function! { [$($name)* $($prefixed)*] $($function)* }
    };
    (prefixed [$($plain:ident)*] [$($name:ident)*] $($function:tt)*) => {
        $crate::c_function! { [$($name)*] $($function)* }
    };
}

/// Exports one function under each of its names.
#[doc(hidden)]
#[macro_export]
macro_rules! c_function {
    ([] $($function:tt)*) => {};
    ([$name:ident $($more:ident)*] throwing
        $module:ident::$function:ident($($argument:ident),*)) => {
        $crate::throwing_new!(
            $name($($argument),*),
            $crate::api::$module::$function,
            $crate::api::cpp::out_of_memory
        );
        $crate::c_function! { [$($more)*] throwing $module::$function($($argument),*) }
    };
    ([$name:ident $($more:ident)*] jump($basic:ident)
        $module:ident::$function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        $crate::jump_to! { $name, $basic, ($($argument: $type),*) $(-> $result)? }
        $crate::c_function! { [$($more)*] jump($basic)
            $module::$function($($argument: $type),*) $(-> $result)? }
    };
    ([$name:ident $($more:ident)*] after($($basic:ident)*)
        $module:ident::$function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        /// See include/slabside.h, or the manual where the name is the system's.
        ///
        /// # Safety
        /// As the function that it names: the arguments are what the manual wants.
        #[no_mangle]
        #[allow(unused_unsafe)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            #[link_section = ".data"] // See `preload/build.rs`.
            static ENDS: $crate::api::forms::Ends = $crate::api::forms::Ends::new();
            let basic = $crate::api::forms::Basic::new(&ENDS, || {
                $crate::api::forms::first_of_theirs(&[$($crate::bound_address!($basic)),*])
            });
            // SAFETY: the caller guarantees what the function of this name demands.
            unsafe { $crate::api::$module::$function($($argument,)* basic) }
        }
        $crate::c_function! { [$($more)*] after($($basic)*)
            $module::$function($($argument: $type),*) $(-> $result)? }
    };
    ([$name:ident $($more:ident)*]
        $module:ident::$function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        /// See include/slabside.h, or the manual where the name is the system's.
        ///
        /// # Safety
        /// As the function that it names: the arguments are what the manual wants.
        #[no_mangle]
        #[allow(unused_unsafe)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller guarantees what the function of this name demands.
            unsafe { $crate::api::$module::$function($($argument),*) }
        }
        $crate::c_function! { [$($more)*]
            $module::$function($($argument: $type),*) $(-> $result)? }
    };
}

/// Puts slabside in the place of the system's malloc. It defines all names of the table, gets ready before the
/// program's own constructors, and counts the last figures after its destructors.
#[doc(hidden)]
#[macro_export]
macro_rules! replace_malloc {
    () => {
        $crate::c_interface!(plain);

        /// Runs after the program's own destructors: the figures for `slabside run --stats`.
        extern "C" fn finish() {
            $crate::process::finish();
        }

        /// Runs before the program's own constructors: a fork finds the hooks in place.
        extern "C" fn prepare() {
            let named = $crate::os::symbol(c"malloc");
            let ours = malloc as unsafe extern "C" fn(usize) -> *mut u8 as *mut c_void;
            // A static program cannot say what a name stands for: it was linked with us.
            let sole = named == ours || named.is_null();
            $crate::api::prepare(sole.then_some($crate::api::SoleMalloc));
        }

        #[used]
        #[link_section = ".init_array"]
        static PREPARE: extern "C" fn() = prepare;

        #[used]
        #[link_section = ".fini_array"]
        static FINISH: extern "C" fn() = finish;
    };
}

/// What the rows' types are named by: for the crates that export them.
#[doc(hidden)]
pub mod types {
    pub use crate::api::glibc::MallInfo;
    pub use crate::api::heaps::OpaqueHeap;
    pub use crate::occupancy::Occupancy;
    pub use crate::stats::Stats;
    pub use core::ffi::{c_char, c_int, c_void};
}

/// Names in the place of the system's, and names of our own, of each function.
pub type Row = (&'static [&'static str], &'static [&'static str]);

/// The names of all functions that the C libraries export.
pub const EXPORTS: &[Row] = crate::c_interface!(names);
