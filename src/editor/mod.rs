//! Tasks for editors: the verbs of `sandbox` in each editor's own format, merged into the files that are there.
//!
//! The tasks name no project and hold no word of a manifest: they run `sandbox` in the project's folder with fixed
//! arguments, so what an agent proposes cannot change what they run. Nothing here is ever written outside the project's
//! folder or through a symbolic link, and what a person changed stays as it is.

pub mod file;

pub mod memory;

mod block;
mod helix;
mod jetbrains;
mod jsonc;
mod neovim;
mod task;
mod vscode;
mod zed;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

/// An editor whose files the launcher can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Editor {
    /// Visual Studio Code and what is built on it.
    Vscode,
    /// Zed.
    Zed,
    /// IntelliJ IDEA and the other IDEs of its platform.
    Jetbrains,
    /// Neovim.
    Neovim,
    /// Helix.
    Helix,
}

impl Editor {
    /// Every editor.
    pub const ALL: [Self; 5] = [Self::Vscode, Self::Zed, Self::Jetbrains, Self::Neovim, Self::Helix];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vscode => "vscode",
            Self::Zed => "zed",
            Self::Jetbrains => "jetbrains",
            Self::Neovim => "neovim",
            Self::Helix => "helix",
        }
    }

    /// What one has to know to use what was written.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Vscode => "run them with `Tasks: Run Task`; the YAML extension by Red Hat checks sandbox.yaml",
            Self::Zed => "run them with `task: spawn`",
            Self::Jetbrains => "they are in the list of run configurations; the plugin `Shell Script` runs them",
            Self::Neovim => {
                "needs Neovim 0.9 or later with `:set exrc`, and asks once whether you trust .nvim.lua; then `:Sandbox`"
            }
            Self::Helix => "space X opens the list; Helix has no terminal, so shell and prompts stay outside of it",
        }
    }

    /// The files of this editor's tasks. With a command that takes a prompt there is a task that asks for one.
    pub fn parts(self, prompted: Option<&[&'static str]>) -> Vec<Part> {
        let tasks = task::tasks(prompted);
        match self {
            Self::Vscode => vscode::parts(&tasks),
            Self::Zed => zed::parts(&tasks),
            Self::Jetbrains => jetbrains::parts(&tasks),
            Self::Neovim => neovim::parts(&tasks),
            Self::Helix => helix::parts(&tasks),
        }
    }
}

/// One file of an editor, and what the launcher puts there.
#[derive(Debug)]
pub struct Part {
    /// The path below the project's folder, in constant words with `/` between them.
    pub path: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Pieces of a JSON document with comments.
    Json(Vec<jsonc::Piece>),
    /// Lines between two marks.
    Block(String),
    /// Keys of Helix.
    Keys(Vec<helix::Binding>),
    /// A file that is the launcher's as a whole.
    Whole(String),
}

/// What a file becomes.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// The text; none when nothing is left that anybody wants.
    pub text: Option<String>,
    /// Entries under the launcher's names that somebody changed, and that were therefore left alone.
    pub kept: Vec<String>,
}

impl Part {
    /// The file with the launcher's entries.
    ///
    /// # Errors
    /// When the file is not of its format, or is somebody else's as a whole.
    pub fn merge(&self, current: Option<&str>) -> Result<Merged, EditorError> {
        match &self.content {
            Content::Json(pieces) => jsonc::merge(&self.path, current, pieces),
            Content::Block(text) => block::merge(&self.path, current, text),
            Content::Keys(bindings) => helix::merge(&self.path, current, bindings),
            Content::Whole(text) => match current {
                Some(other) if other != text => Err(EditorError::Taken(self.path.clone())),
                _ => Ok(Merged { text: Some(text.clone()), kept: Vec::new() }),
            },
        }
    }

    /// The file without the launcher's entries.
    ///
    /// # Errors
    /// When the file is not of its format.
    pub fn strip(&self, current: &str) -> Result<Merged, EditorError> {
        match &self.content {
            Content::Json(pieces) => jsonc::strip(&self.path, current, pieces),
            Content::Block(_) => block::strip(&self.path, current),
            Content::Keys(bindings) => helix::strip(&self.path, current, bindings),
            Content::Whole(text) if text == current => Ok(Merged { text: None, kept: Vec::new() }),
            Content::Whole(_) => Ok(Merged { text: Some(current.to_owned()), kept: vec!["the whole file".to_owned()] }),
        }
    }
}

/// Why an editor's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EditorError {
    /// The file cannot be understood, so that nothing can be merged into it.
    #[error("understand {path}: {fault}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong, and where.
        fault: String,
    },
    /// Another file has the name.
    #[error("write {0}: there is another file of that name, or this one was changed by hand")]
    Taken(String),
    /// A folder on the way, or the file, is a symbolic link or no ordinary file.
    #[error("use {0}: it is a symbolic link or no ordinary file, and could lead out of the project")]
    Link(String),
    /// The file is larger than any that a person writes.
    #[error("read {0}: it is larger than {limit} bytes", limit = file::LIMIT)]
    Large(String),
    /// The file changed while the new one was made.
    #[error("write {0}: it was changed in between")]
    Changed(String),
    /// A file cannot be read or written.
    #[error("use {path}")]
    Access {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// What was written before cannot be remembered or read.
    #[error("use {}, which says what was written before", .path.display())]
    Memory {
        /// The record.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
