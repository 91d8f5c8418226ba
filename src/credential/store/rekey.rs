//! Encrypts every value of a project anew, to whoever is in the recipients file now. Values stay as they are, and so does
//! when they were set: whoever could open a file before may have read it, or has it in the repository's history.

use std::fs;
use std::io;

use super::{Store, StoreError};
use crate::project::{CredentialName, ProjectName};

/// What came of it.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// The values that open for the new recipients now.
    pub done: Vec<CredentialName>,
    /// Those that were left as they were, and why.
    pub failed: Vec<(CredentialName, StoreError)>,
    /// Whose keys open them: untrusted text.
    pub readers: Vec<String>,
}

impl Store {
    /// Encrypts all values of the project anew. One that the user cannot open is left as it was.
    ///
    /// # Errors
    /// When identity, recipients or folder cannot be used.
    pub fn rekey(&self, project: &ProjectName) -> Result<Rekeyed, StoreError> {
        let _lock = self.lock(project)?;
        let (recipients, _) = self.begun()?;
        let mut rekeyed = Rekeyed { readers: recipients.owners(), ..Rekeyed::default() };
        for name in self.names(project)? {
            match self.open(project, &name).and_then(|envelope| self.put(project, &name, &envelope, &recipients)) {
                Ok(()) => rekeyed.done.push(name),
                Err(error) => rekeyed.failed.push((name, error)),
            }
        }
        Ok(rekeyed)
    }

    /// The names of the values that are there, in their order.
    fn names(&self, project: &ProjectName) -> Result<Vec<CredentialName>, StoreError> {
        let path = self.folder.join(project.as_str());
        let failed = |source: io::Error| StoreError::Io { path: path.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            names.extend(
                file.to_str()
                    .and_then(|file| file.strip_suffix(".age"))
                    .and_then(|name| name.parse::<CredentialName>().ok()),
            );
        }
        names.sort();
        Ok(names)
    }
}
