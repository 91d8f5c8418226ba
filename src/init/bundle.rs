//! The header of a bundle, as gitformat-bundle(5) has it. Both ends read it themselves: then git gets the pack alone, as a
//! stream, and nothing else that a bundle may say.

/// The most bytes of a header.
pub const HEADER_LIMIT: usize = 1 << 20;

/// What stands before the pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHeader {
    /// How objects are named: `sha1` or `sha256`, as `git init --object-format` takes it.
    pub object_format: &'static str,
    /// Object ids and what they are called, in the bundle's order; a name may be anything.
    pub references: Vec<(String, Vec<u8>)>,
    /// Object ids that the pack is made on top of, as the bundle says.
    pub bases: Vec<String>,
    /// Bytes of the header; the pack begins there.
    pub length: usize,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleHeaderError {
    /// The first line is another one.
    #[error("it does not begin as one of version 2 or 3 does")]
    Signature,
    /// Something that may change what the pack means, such as a filter.
    #[error("it needs a capability that is not known here")]
    Capability,
    /// A line that is none of those that may be there.
    #[error("its header is not as the format says")]
    Line,
    /// More than [`HEADER_LIMIT`].
    #[error("its header is larger than {HEADER_LIMIT} bytes")]
    TooLong,
    /// The stream ended.
    #[error("it ends within its header")]
    Ended,
}

impl BundleHeader {
    /// Reads the header at the start of these bytes; none as long as there are too few of them.
    ///
    /// # Errors
    /// When they can be no bundle's.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BundleHeaderError> {
        let known = bytes.get(..bytes.len().min(HEADER_LIMIT)).unwrap_or_default();
        let mut header = Self { object_format: "sha1", references: Vec::new(), bases: Vec::new(), length: 0 };
        let mut version = 0;
        loop {
            let rest = &known[header.length..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return if bytes.len() > HEADER_LIMIT { Err(BundleHeaderError::TooLong) } else { Ok(None) };
            };
            let line = &rest[..end];
            header.length += end + 1;
            match (version, line) {
                (0, b"# v2 git bundle") => version = 2,
                (0, b"# v3 git bundle") => version = 3,
                (0, _) => return Err(BundleHeaderError::Signature),
                (_, b"") => return Ok(Some(header)),
                (3, [b'@', capability @ ..]) => header.capability(capability)?,
                (_, [b'-', base @ ..]) => header.bases.push(object_id(base, header.object_format)?.0),
                (_, line) => {
                    let (id, rest) = object_id(line, header.object_format)?;
                    let name = rest.strip_prefix(b" ").ok_or(BundleHeaderError::Line)?;
                    header.references.push((id, name.to_vec()));
                }
            }
        }
    }

    fn capability(&mut self, capability: &[u8]) -> Result<(), BundleHeaderError> {
        self.object_format = match capability {
            b"object-format=sha1" => "sha1",
            b"object-format=sha256" => "sha256",
            _ => return Err(BundleHeaderError::Capability),
        };
        Ok(())
    }

    /// The object that the bundle gives this name; none when it names none so, or several.
    pub fn object(&self, name: &str) -> Option<&str> {
        let mut found = self.references.iter().filter(|(_, known)| known == name.as_bytes());
        match (found.next(), found.next()) {
            (Some((id, _)), None) => Some(id),
            _ => None,
        }
    }
}

/// The object id that a line begins with, and what follows.
fn object_id<'a>(line: &'a [u8], format: &str) -> Result<(String, &'a [u8]), BundleHeaderError> {
    let digits = if format == "sha256" { 64 } else { 40 };
    let (id, rest) = line.split_at_checked(digits).ok_or(BundleHeaderError::Line)?;
    let hexadecimal = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal && matches!(rest.first(), None | Some(b' ')) {
        Ok((String::from_utf8_lossy(id).into_owned(), rest))
    } else {
        Err(BundleHeaderError::Line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_stands_before_the_pack() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!("# v2 git bundle\n-{a} why\n-{a}\n{b} refs/heads/main\n{a} refs/heads/a b\n\nPACKx");
        let header = BundleHeader::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[header.length..], "PACKx");
        assert_eq!(header.bases, [a.clone(), a.clone()]);
        assert_eq!((header.object("refs/heads/main"), header.object("HEAD")), (Some(b.as_str()), None));
        let long = "c".repeat(64);
        let text = format!("# v3 git bundle\n@object-format=sha256\n{long} refs/heads/main\n\n");
        assert_eq!(BundleHeader::parse(text.as_bytes()).unwrap().unwrap().object_format, "sha256");
    }

    #[test]
    fn a_name_that_stands_twice_means_nothing() {
        let text = format!("# v2 git bundle\n{0} x\n{1} x\n\n", "a".repeat(40), "b".repeat(40));
        assert_eq!(BundleHeader::parse(text.as_bytes()).unwrap().unwrap().object("x"), None);
    }

    #[test]
    fn refuses_what_would_change_the_meaning_of_the_pack() {
        let id = "a".repeat(40);
        for (text, error) in [
            ("# v3 git bundle\n@filter=blob:none\n", BundleHeaderError::Capability),
            ("# v3 git bundle\n@object-format=sha1;filter\n", BundleHeaderError::Capability),
            ("# v2 git bundle\n@object-format=sha1\n", BundleHeaderError::Line),
            ("# v4 git bundle\n", BundleHeaderError::Signature),
            ("#!/bin/sh\n", BundleHeaderError::Signature),
            ("# v2 git bundle\nmain\n", BundleHeaderError::Line),
            (&format!("# v2 git bundle\n{id}\n"), BundleHeaderError::Line),
            (&format!("# v2 git bundle\n{}x refs/heads/main\n", &id[1..]), BundleHeaderError::Line),
            (&format!("# v3 git bundle\n@object-format=sha256\n{id} refs/heads/main\n"), BundleHeaderError::Line),
        ] {
            assert_eq!(BundleHeader::parse(text.as_bytes()), Err(error), "{text:?}");
        }
        let endless = ["# v2 git bundle\n".as_bytes(), &vec![b'-'; HEADER_LIMIT]].concat();
        assert_eq!(BundleHeader::parse(&endless), Err(BundleHeaderError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), more in "[-@ a-f0-9\n]{0,200}") {
            drop(BundleHeader::parse(&bytes));
            drop(BundleHeader::parse(format!("# v3 git bundle\n{more}").as_bytes()));
        }
    }
}
