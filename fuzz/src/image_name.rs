//! Names of images, as pods and people write them.

use runtime::image::Reference;

pub(crate) fn image_name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(name) = Reference::parse(&text) else { return };
    let whole = name.to_string();
    let again = Reference::parse(&whole).expect("what we write is read");
    assert_eq!(again.to_string(), whole, "{text:?}");
    assert!(!name.repository().is_empty() && !name.familiar().is_empty());
    let familiar = Reference::parse(&name.familiar()).expect("the short form is read");
    assert_eq!(familiar.to_string(), whole, "the short form names the same image");
}
