//! The alphabet of byte-level tokenizers: each byte as one printable character, as GPT-2's encoder has it.

/// The character of each byte: itself where it is printable in Latin-1, else the next free one from 256 on.
pub(super) fn alphabet() -> [char; 256] {
    let mut free = (256u32..).filter_map(char::from_u32);
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => free.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_that_of_the_package() {
        let alphabet = alphabet();
        let distinct: std::collections::BTreeSet<char> = alphabet.into_iter().collect();
        let package: std::collections::BTreeSet<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(distinct, package);
        assert_eq!((alphabet[b' ' as usize], alphabet[b'\n' as usize], alphabet[0xad]), ('Ġ', 'Ċ', 'Ń'));
    }
}
