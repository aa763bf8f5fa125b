//! Cutting a text that is too long for its place. A cut never falls inside a character, and where
//! the rest is shown to a reader, an ellipsis stands for what is missing.

/// Cuts `text` to its first `bytes_max` bytes, at a character.
pub fn first_bytes(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Cuts `text` to its last `bytes_max` bytes, at a character.
pub fn last_bytes(text: &str, bytes_max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes_max))..]
}

/// Cuts `text` to its first `chars_max` characters.
pub fn first_chars(text: &str, chars_max: usize) -> &str {
    let end = text.char_indices().nth(chars_max);
    end.map_or(text, |(end, _)| &text[..end])
}

/// Stands where `text` was cut to `part`; empty if nothing is missing.
pub fn ellipsis(text: &str, part: &str) -> &'static str {
    if part.len() < text.len() { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_falls_inside_a_character() {
        assert_eq!(first_bytes("aü", 2), "a");
        assert_eq!(first_bytes("aü", 3), "aü");
        assert_eq!(first_bytes("", 3), "");
        assert_eq!(last_bytes("üa", 2), "a");
        assert_eq!(last_bytes("üa", 3), "üa");
        assert_eq!(last_bytes("", 3), "");
        assert_eq!(first_chars("aüb", 2), "aü");
        assert_eq!(first_chars("aü", 2), "aü");
    }

    #[test]
    fn an_ellipsis_stands_only_for_what_is_missing() {
        assert_eq!(ellipsis("aü", first_bytes("aü", 2)), "…");
        assert_eq!(ellipsis("aü", first_bytes("aü", 3)), "");
    }
}
