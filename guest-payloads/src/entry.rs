//! From the boot protocol to the scenario that the host named, and to the end.
#![expect(unsafe_code, reason = "boot information, parameters and scenario table are raw memory")]

use core::arch::asm;
use core::panic::PanicInfo;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig};
use exitspec_protocol::{Name, PARAMS_MAGIC, Params, ScenarioEntry};

use crate::{report, tables};

/// What payloads ask of the loader: a 32 KiB stack, and physical memory mapped somewhere.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 32 * 1024;
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

static PHYSICAL_OFFSET: AtomicU64 = AtomicU64::new(0);
static PARAMS: AtomicPtr<Params> = AtomicPtr::new(ptr::null_mut());

/// Makes this binary a payload: entry point, boot configuration and panic handler. Once in each binary.
#[macro_export]
macro_rules! payload {
    () => {
        const _: () = {
            #[panic_handler]
            fn panic(info: &core::panic::PanicInfo) -> ! {
                $crate::entry::panic(info)
            }

            $crate::bootloader_api::entry_point!($crate::entry::start, config = &$crate::entry::CONFIG);
        };
    };
}

/// Defines a scenario: `scenario! { fn name() { ... } }`. Its name is the function's.
///
/// Nothing else registers it: the linker collects the scenarios of a payload in a table, which the guest
/// searches and the host lists.
#[macro_export]
macro_rules! scenario {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)+) => {
        $(
            $(#[$attribute])*
            fn $name() {
                #[expect(unsafe_code, reason = "the linker collects the entries of the scenario table")]
                #[used]
                #[unsafe(link_section = ".exitspec.scenarios")]
                static ENTRY: $crate::protocol::ScenarioEntry =
                    $crate::protocol::ScenarioEntry { name: $crate::entry::name(stringify!($name)), run: $name };
                $body
            }
        )+
    };
}

/// A scenario's name; one that is too long fails to compile.
#[doc(hidden)]
pub const fn name(text: &str) -> Name {
    match Name::new(text) {
        Some(name) => name,
        None => panic!("a scenario's name must have 1 to Name::MAX bytes"),
    }
}

/// Where a payload starts: runs the scenario that the host named, reports its end, and stops.
pub fn start(info: &'static mut BootInfo) -> ! {
    tables::load(0);
    PHYSICAL_OFFSET.store(info.physical_memory_offset.into_option().unwrap_or(0), Ordering::Relaxed);
    let params = info.ramdisk_addr.into_option().filter(|_| info.ramdisk_len >= Params::SIZE as u64);
    PARAMS.store(params.unwrap_or(0) as *mut Params, Ordering::Relaxed);
    let Some(params) = self::params() else {
        panic!("no parameters: the ramdisk must hold exitspec_protocol::Params");
    };
    match find(&params.scenario) {
        Some(run) => run(),
        None => panic!("no such scenario"),
    }
    report::done();
    stop()
}

/// What a panic does: it is reported, and the guest stops.
pub fn panic(info: &PanicInfo) -> ! {
    report::panic(info);
    stop()
}

/// Waits for ever, with interrupts off.
pub fn stop() -> ! {
    loop {
        // SAFETY: nothing runs after this, so nothing can miss interrupts.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// The argument that the case passes under this name, if it passes one.
pub fn arg(name: &str) -> Option<u64> {
    let name = Name::new(name)?;
    let params = params()?;
    let args = params.args.get(..params.arg_count as usize)?;
    args.iter().find(|arg| arg.name == name).map(|arg| arg.value)
}

/// Where the byte at guest-physical address `gpa` (below 4 GiB) can be reached, as pointer to a `T`.
///
/// Works for RAM, for devices and for what has no memory at all. Devices want volatile accesses.
pub fn physical<T>(gpa: u64) -> *mut T {
    (PHYSICAL_OFFSET.load(Ordering::Relaxed) + gpa) as *mut T
}

/// Guest-physical address of the loader's top-level page table. CR3 holds it, unless a scenario loads another.
pub fn page_tables() -> u64 {
    params().map_or(0, |params| params.page_tables)
}

fn params() -> Option<&'static Params> {
    // SAFETY: the pointer is null, or the loader put at least `Params::SIZE` bytes there, which nobody
    // changes; `Params` consists of integers, for which any bytes are valid.
    let params = unsafe { PARAMS.load(Ordering::Relaxed).as_ref() }?;
    (params.magic == PARAMS_MAGIC).then_some(params)
}

fn find(name: &Name) -> Option<fn()> {
    scenarios().iter().find(|entry| entry.name == *name).map(|entry| entry.run)
}

fn scenarios() -> &'static [ScenarioEntry] {
    unsafe extern "C" {
        static guest_scenarios_start: u8;
        static guest_scenarios_end: u8;
    }
    let (start, end) = (&raw const guest_scenarios_start, &raw const guest_scenarios_end);
    let count = (end as usize - start as usize) / size_of::<ScenarioEntry>();
    // SAFETY: the linker script puts these symbols around the entries of `scenario!`, and nothing else there.
    unsafe { slice::from_raw_parts(start.cast(), count) }
}
