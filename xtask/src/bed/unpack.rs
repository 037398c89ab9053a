//! Compressed files, told by their first bytes, bounded in what they may grow to.

use std::io::{self, Read};

/// The forms in which kernels and modules come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Gzip,
    Xz,
    Zstd,
    /// The legacy form of lz4, as the kernel's build makes it.
    Lz4,
    /// Anything else.
    Plain,
}

impl Form {
    /// The form of what begins like this.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            _ => Self::Plain,
        }
    }
}

/// Unpacks whatever it is; plain bytes stay as they are. Fails beyond `limit` bytes.
pub(crate) fn unpack(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    match Form::of(bytes) {
        Form::Gzip => read(flate2::bufread::GzDecoder::new(bytes), limit),
        Form::Xz => read(lzma_rust2::XzReader::new(bytes, false), limit),
        Form::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(io::Error::other)?;
            read(decoder, limit)
        }
        Form::Lz4 => read(lz4_flex::frame::FrameDecoder::new(bytes), limit),
        Form::Plain => read(bytes, limit),
    }
}

fn read(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut to = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut to)?;
    if to.len() as u64 > limit {
        return Err(io::Error::other(format!("it unpacks to more than {limit} bytes")));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_packed_comes_out_and_bombs_do_not_go_off() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[7; 5000]).unwrap();
        let packed = gzip.finish().unwrap();
        assert_eq!(unpack(&packed, 5000).unwrap(), [7; 5000]);
        assert!(unpack(&packed, 4999).unwrap_err().to_string().contains("4999"));
        assert_eq!(unpack(b"plain", 5).unwrap(), b"plain");
        assert!(unpack(&packed[..20], 5000).is_err());
    }

    #[test]
    fn the_magic_of_each_form_is_known() {
        for (magic, form) in [
            (&[0x1f, 0x8b, 8, 0][..], Form::Gzip),
            (b"\xfd7zXZ\0\0", Form::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Form::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Form::Lz4),
            (b"\x7fELF", Form::Plain),
            (b"", Form::Plain),
        ] {
            assert_eq!(Form::of(magic), form);
        }
        for bad in [&b"\xfd7zXZ\0\0garbage"[..], b"\x28\xb5\x2f\xfdgarbage", b"\x02\x21\x4c\x18\x08\0\0\0cut"]
        {
            assert!(unpack(bad, 100).is_err());
        }
    }

    /// Forty times `kernel `, packed by xz 5 (as the kernel's modules, and with the filter for x86 as its image),
    /// `zstd -19`, `lz4 -l` and `gzip -9`.
    const PACKED: &[&str] = &[
        "fd377a585a0000016922de36020021011c00000010cf58cce00117000e5d0035994aaba2e2af22d922ca900000000000d0d9eb4a\
         0001269802000000ac96df593e300d8b020000000001595a",
        "fd377a585a000004e6d6b4460201040021010000da33ad03e00117000e5d0035994aaba2e2af22d922ca9000000000003c3bd907\
         667b074e00012a9802000000d7561d2eb1c467fb020000000004595a",
        "28b52ffd641800750000386b65726e656c2001000e528b11ad06d3bb",
        "02214c18110000007f6b65726e656c200700f950726e656c20",
        "1f8b0800000000000203cb4e2dca4bcd51c81ea5502900d0d9eb4a18010000",
    ];

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits: Vec<u32> = hexadecimal.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    #[test]
    fn every_form_is_unpacked_whole_and_bounded() {
        let content = b"kernel ".repeat(40);
        for packed in PACKED {
            let packed = bytes(packed);
            assert_eq!(unpack(&packed, 280).unwrap(), content, "{:?}", Form::of(&packed));
            assert!(unpack(&packed, 279).unwrap_err().to_string().contains("279"));
            assert!(!unpack(&packed[..packed.len() / 2], 280).is_ok_and(|part| part == content));
        }
        let forms: Vec<Form> = PACKED.iter().map(|packed| Form::of(&bytes(packed))).collect();
        assert_eq!(forms, [Form::Xz, Form::Xz, Form::Zstd, Form::Lz4, Form::Gzip]);
    }
}
