//! One number for a text or several: for "changed since", for a seed, for a short name.

/// FNV-1a, 64 bit, over `parts` with their lengths: says "changed", and is no defence against anybody.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    parts.into_iter().fold(OFFSET, |hash, part| {
        let length = (part.len() as u64).to_le_bytes();
        length
            .iter()
            .chain(part.as_bytes())
            .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_parts_apart_and_never_changes() {
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
        assert_ne!(fingerprint(["a"]), fingerprint(["a", ""]));
        // Stored in databases: a different value here would make every definition "changed" after an upgrade.
        assert_eq!(fingerprint(["command = [\"x\"]"]), 0x6136_d91d_ddf7_16e6);
    }
}
