//! Strings of bounded length, as the treaty stores them.

/// `text` up to its first NUL, and no longer than `max` bytes; cut between characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let text = text.split_once('\0').map_or(text, |(before, _)| before);
    &text[..text.floor_char_boundary(max)]
}

/// Stores what fits of `text` into a zeroed field, and leaves a NUL behind it.
pub(crate) fn store(field: &mut [u8], text: &str) {
    let text = cut(text, field.len().saturating_sub(1));
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// What [`store`] stored.
pub(crate) fn load(field: &[u8]) -> &str {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters_and_at_a_nul() {
        assert_eq!(cut("orders", 249), "orders");
        assert_eq!(cut("orders", 3), "ord");
        assert_eq!(cut("zoë", 3), "zo");
        assert_eq!(cut("a\0b", 9), "a");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn a_stored_text_ends_with_a_nul() {
        let mut field = [0u8; 4];
        store(&mut field, "abcdef");
        assert_eq!(&field, b"abc\0");
        assert_eq!(load(&field), "abc");
    }
}
