//! Attributes: a length, a type and a value, padded to four bytes; a value may be attributes again.

/// Set in the type of an attribute whose value is attributes.
const NESTED: u16 = 0x8000;

/// Attributes to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written(pub(crate) Vec<u8>);

impl Written {
    pub(crate) fn new() -> Written {
        Written::default()
    }

    fn put(mut self, kind: u16, value: &[u8]) -> Written {
        let length = 4 + value.len();
        // What is larger than an attribute can be is a bug here: names and expressions are short, lists are cut.
        let written = u16::try_from(length).expect("an attribute of less than 64 KiB");
        self.0.extend_from_slice(&written.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn bytes(self, kind: u16, value: &[u8]) -> Written {
        self.put(kind, value)
    }

    /// In network order, as everything in netfilter.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Written {
        self.put(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64(self, kind: u16, value: u64) -> Written {
        self.put(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Written {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn nested(self, kind: u16, value: &Written) -> Written {
        self.put(kind | NESTED, &value.0)
    }
}

/// Attributes that were received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn find(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            let (head, _) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
            let value = rest.get(4..length)?;
            if kind == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }

    pub(crate) fn nested(self, wanted: u16) -> Option<Attributes<'a>> {
        self.find(wanted).map(Attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_again() {
        let inner = Written::new().text(1, "abc").u32(2, 7);
        let all = Written::new().bytes(5, &[9]).nested(6, &inner).0;
        assert_eq!(all.len(), 8 + 4 + 8 + 8);
        assert_eq!(Attributes(&all).find(5), Some(&[9][..]));
        let inner = Attributes(&all).nested(6).unwrap();
        assert_eq!(inner.find(1), Some(&b"abc\0"[..]));
        assert_eq!(inner.find(2), Some(&[0, 0, 0, 7][..]));
        assert_eq!(inner.find(3), None);
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        for cut in [&[][..], &[8, 0], &[8, 0, 1, 0, 1], &[0, 0, 0, 0], &[3, 0, 1, 0]] {
            assert_eq!(Attributes(cut).find(1), None, "{cut:?}");
        }
    }
}
