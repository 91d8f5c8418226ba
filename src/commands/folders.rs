//! The launcher's own folders, by the XDG base directory specification.

use std::path::PathBuf;

use etcetera::BaseStrategy;

/// Where the launcher keeps its configuration, its state and its cache.
#[derive(Debug, Clone)]
pub struct Folders {
    /// `$XDG_CONFIG_HOME/sandbox`: `config.yaml`, the age identity.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/sandbox`: journals, audit log, trust.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/sandbox`: packages, layers. May be deleted at any time.
    pub cache: PathBuf,
    /// The user's home.
    pub home: PathBuf,
}

impl Folders {
    /// Reads the environment.
    pub fn from_environment() -> Self {
        match etcetera::base_strategy::Xdg::new() {
            Ok(xdg) => Self {
                config: xdg.config_dir().join("sandbox"),
                state: xdg.state_dir().unwrap_or_else(|| xdg.data_dir()).join("sandbox"),
                cache: xdg.cache_dir().join("sandbox"),
                home: xdg.home_dir().to_path_buf(),
            },
            // Without a home there is still a private place for this boot.
            Err(_) => {
                let base = std::env::temp_dir().join(format!("sandbox-{}", rustix::process::getuid().as_raw()));
                Self { config: base.join("config"), state: base.join("state"), cache: base.join("cache"), home: base }
            }
        }
    }
}
