//! Tests of the loader at its public boundary: an ELF file goes in, memory and registers come out.

mod boot_info;
mod elf_builder;
mod image;
mod malformed;
mod property;
mod ram;
mod reading;

use bootloader_api::BootloaderConfig;
use bootloader_api::config::Mapping;
use elf_builder::{Elf, Load, PF_R, PF_W, PF_X};

use super::Payload;

/// RAM of the sample's tests, bytes.
const MEMORY: u64 = 8 << 20;

/// A payload as the linker script makes them: real-mode code, text, constants, data with .bss.
fn sample() -> Elf {
    let mut data = vec![0x44; 0x10];
    data.resize(0x800, 0);
    let mut elf = Elf {
        loads: vec![
            Load::new(0x8000, PF_R | PF_X, &[0xe4, 0x61, 0xf4]), // in al, 0x61; hlt
            Load::new(0x20_0000, PF_R | PF_X, &[0x90; 0x1800]),
            Load::new(0x20_2000, PF_R, &[0x33; 0x123]),
            Load { memsz: 0x2345, ..Load::new(0x20_3000, PF_R | PF_W, &data) },
        ],
        entry: 0x20_0100,
        ..Elf::default()
    };
    elf.set_config(&config());
    elf.add_scenario("first", 0x20_0000);
    elf.add_scenario("second", 0x20_0010);
    elf
}

/// What the sample asks of the loader: a stack of four pages.
fn config() -> BootloaderConfig {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 0x3001;
    config
}

/// The sample with physical memory mapped.
fn sample_with_physical_memory(mapping: Mapping) -> Elf {
    let mut config = config();
    config.mappings.physical_memory = Some(mapping);
    let mut elf = sample();
    elf.set_config(&config);
    elf
}

fn parse(elf: &Elf) -> Payload {
    Payload::parse("sample", &elf.build()).expect("the sample is valid")
}
