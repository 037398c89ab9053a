//! One loadable piece of a payload, and the rules that the pieces obey together.
//!
//! Everything here is about addresses; how an ELF file spells them is `elf`'s matter.

use std::ops::Range;

use super::error::{Fault, Place};
use super::image::MAX_MEMORY;

/// Size of the pages in which segments are mapped, bytes.
pub(super) const PAGE: u64 = 4096;

/// A loadable segment. One that exists obeys the rules of [`Segment::new`].
#[derive(Debug)]
pub(super) struct Segment {
    /// First byte, guest-physical and virtual.
    pub(super) start: u64,
    /// Size in memory, bytes; never 0.
    pub(super) size: u64,
    /// What the file provides; zeros follow up to `size`.
    pub(super) content: Vec<u8>,
    /// May be written.
    pub(super) writable: bool,
    /// May be executed.
    pub(super) executable: bool,
}

impl Segment {
    /// A segment that lies in the RAM a guest can have, above the first page, and is not writable code.
    pub(super) fn new(
        place: Place,
        content: &[u8],
        readable: bool,
        writable: bool,
        executable: bool,
    ) -> Result<Self, Fault> {
        let segment = place;
        let file = content.len() as u64;
        if file > place.size {
            return Err(Fault::FileBeyondMemory { segment, file, memory: place.size });
        }
        if place.start.checked_add(place.size).is_none_or(|end| end > MAX_MEMORY) {
            return Err(Fault::SegmentTooHigh { segment, limit: MAX_MEMORY });
        }
        if place.start < PAGE {
            return Err(Fault::SegmentInFirstPage { segment });
        }
        if writable && executable {
            return Err(Fault::WritableCode { segment });
        }
        if !readable {
            return Err(Fault::NotReadable { segment });
        }
        Ok(Self { start: place.start, size: place.size, content: content.to_vec(), writable, executable })
    }

    /// The whole pages that it touches.
    pub(super) fn pages(&self) -> Range<u64> {
        page_down(self.start)..page_up(self.start + self.size)
    }

    /// The addresses of its bytes.
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start + self.size
    }

    /// End of the part that the file provides.
    pub(super) fn file_end(&self) -> u64 {
        self.start + self.content.len() as u64
    }

    /// `len` bytes at `addr`, if the file provides all of them.
    pub(super) fn file_bytes(&self, addr: u64, len: usize) -> Option<&[u8]> {
        let offset = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        self.content.get(offset..offset.checked_add(len)?)
    }
}

/// Sorts segments by address and requires that no two share a page: a page has one set of permissions.
pub(super) fn sort(mut segments: Vec<Segment>) -> Result<Vec<Segment>, Fault> {
    segments.sort_by_key(|segment| segment.start);
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.pages().end > second.pages().start
        {
            return Err(Fault::SharedPage { first: first.into(), second: second.into() });
        }
    }
    if segments.is_empty() {
        return Err(Fault::NoSegment);
    }
    Ok(segments)
}

/// Requires that `address` lies in executable memory.
pub(super) fn require_code(what: &'static str, address: u64, segments: &[Segment]) -> Result<(), Fault> {
    let found = segments.iter().any(|segment| segment.executable && segment.range().contains(&address));
    if found { Ok(()) } else { Err(Fault::NotCode { what, address }) }
}

/// The start of the page that holds `addr`.
pub(super) const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE - 1)
}

/// `addr` rounded up to a page; `addr` is at most [`MAX_MEMORY`], so this cannot overflow.
pub(super) const fn page_up(addr: u64) -> u64 {
    page_down(addr + PAGE - 1)
}
