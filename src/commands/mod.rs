//! One file a verb: its arguments (their doc comments are the help) and its function, which loads, plans, acts, prints.

pub mod audit;
pub mod audit_report;
pub mod candidates;
pub mod commits;
pub mod connect;
pub mod copy;
pub mod credential;
pub mod cut_off;
pub mod denied;
pub mod diff;
pub mod doctor;
pub mod down;
pub mod editor;
pub mod exec;
pub mod explain;
pub mod failure;
mod fold;
pub mod folders;
pub mod image;
pub mod init;
pub mod kept_home;
pub mod load;
pub mod logs;
pub mod manifest_failure;
pub mod network;
pub mod page;
mod pager;
pub mod plan;
pub mod port;
pub mod printer;
pub mod progress;
pub mod proxy;
pub mod ps;
pub mod pull;
pub mod registry_login;
pub mod report;
pub mod review;
pub mod sandbox;
pub mod sandbox_exchange;
mod sarif;
pub mod scan;
pub mod schema;
pub mod session_failure;
pub mod supervise;
mod supervisor;
pub mod trust;
pub mod up;
pub mod why;
pub mod workspace;

pub use failure::Failure;
pub use folders::Folders;
pub use printer::{Format, Printer};

/// Where the help lists what is the same everywhere, apart from what a verb is about.
const OF_EVERY_VERB: &str = "Options of every verb";

/// Options that every verb takes.
#[derive(Debug, Clone, clap::Args)]
pub struct GlobalArguments {
    /// The Docker Engine's address (`unix:///…`, `tcp://…`), in place of DOCKER_HOST and the current Docker context
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = OF_EVERY_VERB)]
    pub engine: Option<String>,
    /// How results are printed: `text` for people, or `json`, one document
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, hide_possible_values = true, help_heading = OF_EVERY_VERB)]
    pub format: Format,
    /// Print no progress
    #[arg(long, short, global = true, help_heading = OF_EVERY_VERB)]
    pub quiet: bool,
}

/// What every verb's function gets.
#[derive(Debug)]
pub struct Context {
    /// Writes results, progress and failures.
    pub printer: Printer,
    /// The launcher's folders.
    pub folders: Folders,
    /// `--engine`.
    pub engine: Option<String>,
}

impl Context {
    /// Reads the environment once.
    pub fn new(global: GlobalArguments) -> Self {
        Self {
            printer: Printer::new(global.format, global.quiet),
            folders: Folders::from_environment(),
            engine: global.engine,
        }
    }
}
