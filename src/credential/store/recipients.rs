//! Who can open new values: a file that is reviewed like code, one public key a line below the name of its owner.

use std::fs::File;
use std::io::{self, Read as _};
use std::str::FromStr as _;

use super::{Store, StoreError, create};

/// The largest recipients file that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// Somebody who can open new values.
pub(super) struct Recipient {
    /// The name above the key, or the beginning of the key when there is none.
    pub(super) owner: String,
    /// The key.
    pub(super) key: Box<dyn age::Recipient>,
}

impl Store {
    /// Everybody who can open new values; the file is begun with the user himself, who is always among them.
    /// Says whether it was begun just now.
    pub(super) fn recipients(&self) -> Result<(Vec<Recipient>, bool), StoreError> {
        let path = &self.recipients;
        let failed = |source| StoreError::Io { path: path.clone(), source };
        let own = self.public_keys()?;
        let mut began = false;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!(
                    "# Who can open new values: one age or ssh public key a line, below the name of its owner.\n# {}\n{}\n",
                    self.owner,
                    own.join("\n")
                );
                began = create(path, text.as_bytes()).map_err(failed)?;
                File::open(path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(LIMIT).read_to_string(&mut text).map_err(failed)?;
        let (recipients, keys) = parse(&text).map_err(|line| StoreError::Recipient { path: path.clone(), line })?;
        if !own.iter().any(|key| keys.contains(key)) {
            let public = own.into_iter().next().unwrap_or_default();
            return Err(StoreError::NotListed { path: path.clone(), public });
        }
        Ok((recipients, began))
    }
}

/// The recipients and their keys as text. An error is the number of the line.
fn parse(text: &str) -> Result<(Vec<Recipient>, Vec<String>), usize> {
    let mut recipients = Vec::new();
    let mut keys = Vec::new();
    let mut owner: Option<&str> = None;
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() {
            owner = None;
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            owner = Some(comment.trim());
            continue;
        }
        let (text, key): (String, Box<dyn age::Recipient>) = if let Ok(key) = age::x25519::Recipient::from_str(line) {
            (key.to_string(), Box::new(key))
        } else if let Ok(key) = age::ssh::Recipient::from_str(line) {
            (key.to_string(), Box::new(key))
        } else {
            return Err(index + 1);
        };
        let name = owner.filter(|name| !name.is_empty()).map(|name| name.chars().take(64).collect());
        recipients.push(Recipient { owner: name.unwrap_or_else(|| text.chars().take(24).collect()), key });
        keys.push(text);
    }
    Ok((recipients, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";

    #[test]
    fn names_the_owner_above_each_key() {
        let text = format!("# Ada\n{KEY}\n\n# Bo\n{SSH} bo@laptop\n\n{KEY}\n");
        let (recipients, keys) = parse(&text).unwrap();
        let owners: Vec<&str> = recipients.iter().map(|recipient| recipient.owner.as_str()).collect();
        assert_eq!(owners, ["Ada", "Bo", &KEY[..24]]);
        assert_eq!(keys, [KEY, SSH, KEY]);
    }

    #[test]
    fn says_which_line_is_no_public_key() {
        for (text, line) in [("nobody", 1), ("# Ada\n\nage1wrong", 3), ("AGE-SECRET-KEY-1QQ", 1), ("ssh-dss AAAA", 1)] {
            assert_eq!(parse(text).err(), Some(line), "{text}");
        }
    }
}
