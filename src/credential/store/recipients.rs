//! Who can open new values: a file that is reviewed like code, one public key a line below the name of its owner.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::str::FromStr as _;

use super::{Store, StoreError, create};

/// The largest recipients file that is read, in bytes.
const LIMIT: u64 = 64 << 10;
/// The longest name of an owner, in characters.
const OWNER_LIMIT: usize = 64;

/// Somebody who can open new values.
struct Recipient {
    /// The name above the key, or the beginning of the key when there is none.
    owner: String,
    key: Box<dyn age::Recipient>,
    /// The key as text, without what ssh has behind it.
    text: String,
    /// The number of its line, from 0.
    line: usize,
}

/// Everybody who can open new values.
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Whose keys they are, in the order of the file: untrusted text.
    pub fn owners(&self) -> Vec<String> {
        self.0.iter().map(|recipient| recipient.owner.clone()).collect()
    }

    /// Owner and public key of each: untrusted text.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|recipient| (recipient.owner.as_str(), recipient.text.as_str()))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|recipient| recipient.key.as_ref() as _)
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|recipient| recipient.text == key)
    }
}

impl Store {
    /// Everybody who can open new values; the file is begun with the user himself, who is always among them.
    /// Says whether it was begun just now.
    pub(super) fn begun(&self) -> Result<(Recipients, bool), StoreError> {
        let own = self.public_keys()?;
        let mut began = false;
        if !self.recipients.exists() {
            let text = format!(
                "# Who can open new values: one age or ssh public key a line, below the name of its owner.\n# {}\n{}\n",
                self.owner,
                own.join("\n")
            );
            began = create(&self.recipients, text.as_bytes()).map_err(|source| self.io(source))?;
        }
        let (_, recipients) = self.listed()?;
        if !own.iter().any(|key| recipients.has(key)) {
            let public = own.into_iter().next().unwrap_or_default();
            return Err(StoreError::NotListed { path: self.recipients.clone(), public });
        }
        Ok((recipients, began))
    }

    /// Everybody who can open new values, and which of the keys are the user's own. Nobody when there is no file yet.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is no public key.
    pub fn recipients(&self) -> Result<(Recipients, Vec<String>), StoreError> {
        let (_, recipients) = self.listed()?;
        // Who has no identity yet, or has lost it, can still look who has.
        Ok((recipients, self.own_keys().unwrap_or_default()))
    }

    /// Adds a key for new values. What is stored already opens for it after a `rekey`.
    ///
    /// # Errors
    /// When it is no public key, is there already, or the file cannot be used.
    pub fn add_recipient(&self, owner: &str, key: &str) -> Result<(), StoreError> {
        let owner = owner.trim();
        let named = !owner.is_empty() && owner.chars().count() <= OWNER_LIMIT && !owner.chars().any(char::is_control);
        let (text, _) =
            public_key(key.trim()).filter(|_| named && !owner.starts_with('#')).ok_or(StoreError::NotAKey)?;
        let _lock = self.lock_all()?;
        // Whoever adds a first one is in the file before that.
        if !self.recipients.exists() {
            self.begun()?;
        }
        let (mut whole, recipients) = self.listed()?;
        if let Some(other) = recipients.0.iter().find(|recipient| recipient.text == text) {
            return Err(StoreError::Listed { path: self.recipients.clone(), owner: other.owner.clone() });
        }
        if !whole.is_empty() && !whole.ends_with('\n') {
            whole.push('\n');
        }
        whole.push_str(&format!("\n# {owner}\n{text}\n"));
        self.replace_recipients(&whole)
    }

    /// Takes all keys of an owner out, or one key. Gives the owners of what was taken out.
    ///
    /// # Errors
    /// When there is none, it is the user's own last key, or the file cannot be used.
    pub fn remove_recipient(&self, who: &str) -> Result<Vec<String>, StoreError> {
        let _lock = self.lock_all()?;
        let (whole, recipients) = self.listed()?;
        let key = public_key(who.trim()).map(|(text, _)| text);
        let (out, kept): (Vec<&Recipient>, Vec<&Recipient>) = (recipients.0.iter())
            .partition(|recipient| key.as_ref().map_or(recipient.owner == who.trim(), |key| recipient.text == *key));
        if out.is_empty() {
            return Err(StoreError::NoRecipient { path: self.recipients.clone(), who: who.trim().to_owned() });
        }
        let own = self.own_keys().unwrap_or_default();
        let is_own = |recipient: &&Recipient| own.contains(&recipient.text);
        if out.iter().any(is_own) && !kept.iter().any(is_own) {
            return Err(StoreError::OwnKey { path: self.recipients.clone() });
        }
        let lines: Vec<&str> = whole.lines().collect();
        let gone = |line: usize| out.iter().any(|recipient| recipient.line == line);
        let names = |line: usize| lines[line].trim().starts_with('#');
        let mut text = String::new();
        for (line, content) in lines.iter().enumerate() {
            // A name goes when every key below it does.
            let below = (line + 1..lines.len()).take_while(|next| !names(*next) && !lines[*next].trim().is_empty());
            let empty = names(line) && below.clone().next().is_some() && below.into_iter().all(gone);
            if !gone(line) && !empty {
                text.push_str(content);
                text.push('\n');
            }
        }
        self.replace_recipients(&text)?;
        Ok(out.into_iter().map(|recipient| recipient.owner.clone()).collect())
    }

    fn listed(&self) -> Result<(String, Recipients), StoreError> {
        let mut text = String::new();
        match File::open(&self.recipients) {
            Ok(file) => file.take(LIMIT).read_to_string(&mut text).map_err(|source| self.io(source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(self.io(error)),
        };
        let recipients = parse(&text).map_err(|line| StoreError::Recipient { path: self.recipients.clone(), line })?;
        Ok((text, recipients))
    }

    fn replace_recipients(&self, text: &str) -> Result<(), StoreError> {
        let folder = self.recipients.parent().unwrap_or(Path::new("."));
        let replaced = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.recipients).map_err(|error| error.error)?;
            Ok(())
        };
        replaced().map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> StoreError {
        StoreError::Io { path: self.recipients.clone(), source }
    }
}

/// A public key of age or ssh, as it is written and as what encrypts. None for anything else.
fn public_key(line: &str) -> Option<(String, Box<dyn age::Recipient>)> {
    if let Ok(key) = age::x25519::Recipient::from_str(line) {
        return Some((key.to_string(), Box::new(key)));
    }
    age::ssh::Recipient::from_str(line).ok().map(|key| (key.to_string(), Box::new(key) as _))
}

/// The recipients. An error is the number of the line.
fn parse(text: &str) -> Result<Recipients, usize> {
    let mut recipients = Vec::new();
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
        let (text, key) = public_key(line).ok_or(index + 1)?;
        let name = owner.filter(|name| !name.is_empty()).map(|name| name.chars().take(OWNER_LIMIT).collect());
        let owner = name.unwrap_or_else(|| text.chars().take(24).collect());
        recipients.push(Recipient { owner, key, text, line: index });
    }
    Ok(Recipients(recipients))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";

    #[test]
    fn names_the_owner_above_each_key() {
        let text = format!("# Ada\n{KEY}\n\n# Bo\n{SSH} bo@laptop\n\n{KEY}\n");
        let recipients = parse(&text).ok().unwrap();
        assert_eq!(recipients.owners(), ["Ada", "Bo", &KEY[..24]]);
        let keys: Vec<&str> = recipients.pairs().map(|(_, key)| key).collect();
        assert_eq!(keys, [KEY, SSH, KEY]);
    }

    #[test]
    fn says_which_line_is_no_public_key() {
        for (text, line) in [("nobody", 1), ("# Ada\n\nage1wrong", 3), ("AGE-SECRET-KEY-1QQ", 1), ("ssh-dss AAAA", 1)] {
            assert_eq!(parse(text).err(), Some(line), "{text}");
        }
    }
}
