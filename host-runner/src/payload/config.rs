//! What a payload asks of its loader: bootloader_api's configuration section, checked and reduced to
//! what this loader does. Anything else that is asked for is refused by name, never ignored.

use bootloader_api::BootloaderConfig;
use bootloader_api::config::Mapping;

use super::error::Fault;
use super::image::MAX_MEMORY;

/// The ELF section that bootloader_api's `entry_point!` makes.
pub(super) const SECTION: &str = ".bootloader-config";

/// Where the version lies in the section: major, minor, patch as u16, then a pre-release flag
/// (`BootloaderConfig::serialize`; the fields are private, and `deserialize` does not compare them).
const VERSION: std::ops::Range<usize> = 16..23;

/// Where physical memory is mapped if the payload leaves the choice to the loader: the start of the upper
/// canonical half, far from every identity mapping.
const DYNAMIC_PHYSICAL_MEMORY: u64 = 0xffff_8000_0000_0000;

/// How much physical memory the optional mapping shows, bytes (`Mappings::physical_memory`: "at least 4 GiB").
pub(super) const PHYSICAL_MEMORY: u64 = 1 << 32;

/// The parts of the configuration that shape the image.
#[derive(Debug)]
pub(super) struct BootRequest {
    /// Stack size, bytes; neither 0 nor beyond [`MAX_MEMORY`].
    pub(super) stack_size: u64,
    /// Virtual address at which physical address 0 is also mapped, if asked for.
    pub(super) physical_memory: Option<u64>,
}

/// Reads the configuration section.
pub(super) fn read(section: Option<&[u8]>) -> Result<BootRequest, Fault> {
    let section = section.ok_or(Fault::NoConfig { section: SECTION })?;
    let config = BootloaderConfig::deserialize(section)
        .map_err(|reason| Fault::Config { section: SECTION, reason })?;
    let ours = BootloaderConfig::new_default().serialize();
    let (found, ours) = (&section[VERSION], &ours[VERSION]); // deserialize has checked the length
    if found != ours {
        return Err(Fault::ConfigVersion { found: version(found), ours: version(ours) });
    }
    refuse_unsupported(&config)?;
    let stack_size = config.kernel_stack_size;
    if !(1..=MAX_MEMORY).contains(&stack_size) {
        return Err(Fault::StackSize { size: stack_size, limit: MAX_MEMORY });
    }
    let physical_memory = match config.mappings.physical_memory {
        None => None,
        Some(Mapping::Dynamic) => Some(DYNAMIC_PHYSICAL_MEMORY),
        Some(Mapping::FixedAddress(address)) => Some(check_physical_memory(address)?),
    };
    Ok(BootRequest { stack_size, physical_memory })
}

/// Stacks, boot information and images are identity-mapped here, so nothing can choose its address.
fn refuse_unsupported(config: &BootloaderConfig) -> Result<(), Fault> {
    let BootloaderConfig { mappings, .. } = config;
    #[expect(deprecated, reason = "an old setting that asks for something is refused as well")]
    let frame_buffer = &config.frame_buffer;
    let settings = [
        ("mappings.kernel_stack", mappings.kernel_stack != Mapping::Dynamic),
        ("mappings.kernel_base", mappings.kernel_base != Mapping::Dynamic),
        ("mappings.boot_info", mappings.boot_info != Mapping::Dynamic),
        ("mappings.framebuffer", mappings.framebuffer != Mapping::Dynamic),
        ("mappings.page_table_recursive", mappings.page_table_recursive.is_some()),
        ("mappings.aslr", mappings.aslr),
        ("mappings.dynamic_range_start", mappings.dynamic_range_start.is_some()),
        ("mappings.dynamic_range_end", mappings.dynamic_range_end.is_some()),
        ("mappings.ramdisk_memory", mappings.ramdisk_memory != Mapping::Dynamic),
        ("frame_buffer.minimum_framebuffer_height", frame_buffer.minimum_framebuffer_height.is_some()),
        ("frame_buffer.minimum_framebuffer_width", frame_buffer.minimum_framebuffer_width.is_some()),
    ];
    match settings.into_iter().find(|&(_, asked)| asked) {
        Some((setting, _)) => Err(Fault::Unsupported { setting }),
        None => Ok(()),
    }
}

fn check_physical_memory(address: u64) -> Result<u64, Fault> {
    let fault = |rule| Err(Fault::PhysicalMemory { address, rule });
    if !address.is_multiple_of(2 << 20) {
        return fault("a multiple of 2 MiB (0x200000)");
    }
    if address < PHYSICAL_MEMORY {
        return fault("0x100000000 or higher: what lies below is identity-mapped");
    }
    let last = address.checked_add(PHYSICAL_MEMORY - 1);
    if !last.is_some_and(|last| is_canonical(address) && is_canonical(last) && (address ^ last) >> 63 == 0) {
        return fault("such that it and the 4 GiB behind it are canonical (SDM Vol. 1, 3.3.7.1)");
    }
    Ok(address)
}

/// Whether bits 63 to 47 are equal (48-bit linear addresses: CR4.LA57 is 0 at the start).
fn is_canonical(address: u64) -> bool {
    x86_64::VirtAddr::try_new(address).is_ok()
}

fn version(bytes: &[u8]) -> String {
    let part = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let pre_release = if bytes[6] == 0 { "" } else { " (pre-release)" };
    format!("{}.{}.{}{pre_release}", part(0), part(2), part(4))
}
