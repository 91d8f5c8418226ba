//! The manual pages: one for the program and one for each verb, made of the same words as `--help`.

use std::path::PathBuf;

use crate::commands::{Context, Failure};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to write every page to; without it the first page is printed
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("write the manual pages to {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    #[error("make the manual page")]
    Render(#[source] std::io::Error),
}

/// Prints the first page or writes all of them.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let failed = |error: Refusal| Failure::new("man-not-written", &error, "name a folder that you can write");
    let command = super::command().disable_help_subcommand(true);
    let Some(folder) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(|error| failed(Refusal::Render(error)))?;
        context.printer.line(String::from_utf8_lossy(&page).trim_end());
        return Ok(0);
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| failed(Refusal::Write(folder.clone(), error)))?;
    context.printer.note(&format!("wrote the manual pages to {}", folder.display()));
    Ok(0)
}
