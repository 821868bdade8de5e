//! The bytes of a message: fixed little-endian numbers, counted lists, and records that may grow.
//!
//! A record carries its length. Fields are only ever appended to it: one that the sender did not know reads as its
//! default, one that the receiver does not know is skipped.

/// A value that can be written to and read from a message.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// `None` when the bytes end too early or make no sense.
    fn take(input: &mut &[u8]) -> Option<Self>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        Self::take(&mut bytes)
    }
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = input.split_first_chunk()?;
                *input = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(u8::take(input)? != 0)
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        let bytes = take_counted(input)?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        let count = u32::take(input)?;
        // Not reserved in advance: the count comes from outside. Every item takes at least one byte.
        (0..count).map(|_| T::take(input)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some((A::take(input)?, B::take(input)?))
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).expect("a message stays far below 4 GiB").put(out);
}

/// Reads a length and that many bytes.
pub fn take_counted<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::take(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

/// Writes `body` with its length in front.
pub fn put_counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    0u32.put(out);
    body(out);
    let length = u32::try_from(out.len() - start - 4).expect("a message stays far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Declares structs whose fields may be appended to later.
#[macro_export]
macro_rules! record {
    ($($(#[$meta:meta])* $visible:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_visible:vis $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        $visible struct $name {
            $($(#[$field_meta])* $field_visible $field: $type,)*
        }

        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::put_counted(out, |_out| {
                    $(self.$field.put(_out);)*
                });
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                let mut _own = $crate::wire::take_counted(input)?;
                $(let $field = if _own.is_empty() {
                    Default::default()
                } else {
                    $crate::wire::Wire::take(&mut _own)?
                };)*
                Some($name { $($field),* })
            }
        }
    )*};
}

/// Declares an enum of records; the numbers are for ever.
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($type:ty) = $tag:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // Each is made once and taken apart at once.
        pub enum $name {
            $($(#[$variant_meta])* $variant($type),)*
        }

        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant(body) => {
                        <u16 as $crate::wire::Wire>::put(&$tag, out);
                        body.put(out);
                    })*
                }
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                match <u16 as $crate::wire::Wire>::take(input)? {
                    $($tag => Some($name::$variant($crate::wire::Wire::take(input)?)),)*
                    _ => None,
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    record! {
        struct Old {
            name: String,
            sizes: Vec<u64>,
        }
        struct New {
            name: String,
            sizes: Vec<u64>,
            note: Option<String>,
            pairs: Vec<(String, bool)>,
        }
    }

    #[test]
    fn a_field_that_the_sender_did_not_know_reads_as_its_default() {
        let old = Old { name: "pod".into(), sizes: vec![1, u64::MAX] };
        let new = New::from_bytes(&old.to_bytes()).unwrap();
        assert_eq!(new, New { name: "pod".into(), sizes: vec![1, u64::MAX], ..New::default() });
    }

    #[test]
    fn a_field_that_the_receiver_does_not_know_is_skipped() {
        let new = New {
            name: "pod".into(),
            note: Some("x".into()),
            pairs: vec![("a".into(), true)],
            ..New::default()
        };
        let both = (new.clone(), 7u32);
        let (old, after) = <(Old, u32)>::from_bytes(&both.to_bytes()).unwrap();
        assert_eq!((old.name.as_str(), after), ("pod", 7));
    }

    #[test]
    fn bytes_that_end_too_early_are_refused() {
        let bytes = New { name: "pod".into(), sizes: vec![3], ..New::default() }.to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(New::from_bytes(&bytes[..end]), None, "cut at {end}");
        }
    }
}
