//! Guest memory as the processor sees it: chunks applied to zeros, and a page walk written from the
//! SDM's figures, without the types that built the tables.

use crate::payload::Image;

/// A run of virtual addresses that map to consecutive physical ones with equal permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) virt: u64,
    pub(super) phys: u64,
    pub(super) size: u64,
    pub(super) writable: bool,
    pub(super) executable: bool,
    pub(super) user: bool,
    pub(super) uncached: bool,
}

/// RAM after the image was written.
pub(super) struct Ram(pub(super) Vec<u8>);

impl Ram {
    pub(super) fn with(image: &Image) -> Self {
        let mut ram = vec![0; image.memory as usize];
        for chunk in &image.chunks {
            let at = chunk.gpa as usize;
            ram[at..at + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
        }
        Self(ram)
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> &[u8] {
        &self.0[at as usize..at as usize + len]
    }

    pub(super) fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    /// Everything that the tables at `cr3` map, neighbours joined.
    pub(super) fn mappings(&self, cr3: u64) -> Vec<Mapping> {
        let all = Mapping {
            virt: 0,
            phys: cr3,
            size: 1 << 48,
            writable: true,
            executable: true,
            user: true,
            uncached: false,
        };
        let mut leaves: Vec<Mapping> = Vec::new();
        self.walk(all, &mut leaves);
        leaves.into_iter().fold(Vec::new(), |mut joined, leaf| {
            match joined.last_mut() {
                Some(last) if continues(last, &leaf) => last.size += leaf.size,
                _ => joined.push(leaf),
            }
            joined
        })
    }

    fn walk(&self, table: Mapping, leaves: &mut Vec<Mapping>) {
        let size = table.size / 512;
        for index in 0..512 {
            let entry = self.u64(table.phys + index * 8);
            if entry & 1 == 0 {
                assert_eq!(entry, 0, "an entry that is not present must be empty");
                continue;
            }
            assert_eq!(
                entry & 0x7ff0_0000_0000_0f60,
                0,
                "reserved, ignored, accessed and dirty bits are clear"
            );
            let is_leaf = size == 4096 || entry & 1 << 7 != 0;
            let virt = table.virt + index * size;
            let below = Mapping {
                virt: if virt >> 47 == 1 { virt | 0xffff << 48 } else { virt },
                phys: entry & 0x000f_ffff_ffff_f000,
                size,
                writable: table.writable && entry & 2 != 0,
                executable: table.executable && entry >> 63 == 0,
                user: table.user && entry & 4 != 0,
                uncached: is_leaf && entry & 1 << 4 != 0,
            };
            assert!(entry & 1 << 7 == 0 || size == 2 << 20, "only 2 MiB pages are large");
            assert_eq!(below.phys % if is_leaf { size } else { 4096 }, 0);
            if is_leaf { leaves.push(below) } else { self.walk(below, leaves) }
        }
    }
}

fn continues(last: &Mapping, next: &Mapping) -> bool {
    *next
        == Mapping {
            virt: last.virt.wrapping_add(last.size),
            phys: last.phys + last.size,
            size: next.size,
            ..*last
        }
}
