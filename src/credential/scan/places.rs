//! Where developers keep credentials: files below the home, and names that tell in any folder.

/// What is looked for in a file, besides the formats of issuers and passwords in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing else.
    Any,
    /// Private keys: every file of a folder.
    Keys,
    /// Values by telling names.
    Settings,
    /// The same in a file that a program keeps its log-in in, where shorter names tell as well.
    Login,
    /// `password` as netrc(5) has it.
    Netrc,
    /// The whole file is one value.
    Whole,
    /// The last field of each line, as in `.pgpass`.
    LastField,
}

/// Files below the home, by what writes them. Each place is what its program documents.
pub(super) const HOME: &[(&str, Shape)] = &[
    // Shells and their histories.
    (".bashrc", Shape::Settings),
    (".bash_profile", Shape::Settings),
    (".bash_login", Shape::Settings),
    (".bash_aliases", Shape::Settings),
    (".profile", Shape::Settings),
    (".zshrc", Shape::Settings),
    (".zshenv", Shape::Settings),
    (".zprofile", Shape::Settings),
    (".zlogin", Shape::Settings),
    (".config/fish/config.fish", Shape::Settings),
    (".config/environment.d", Shape::Settings),
    (".bash_history", Shape::Settings),
    (".zsh_history", Shape::Settings),
    (".local/share/fish/fish_history", Shape::Settings),
    (".python_history", Shape::Settings),
    (".psql_history", Shape::Settings),
    (".env", Shape::Settings),
    (".envrc", Shape::Settings),
    // Clouds.
    (".aws/credentials", Shape::Settings),
    (".aws/config", Shape::Settings),
    (".aws/cli/cache", Shape::Settings),
    (".aws/sso/cache", Shape::Settings),
    (".azure/msal_token_cache.json", Shape::Login),
    (".azure/accessTokens.json", Shape::Login),
    (".config/gcloud/application_default_credentials.json", Shape::Login),
    (".kube/config", Shape::Settings),
    (".vault-token", Shape::Whole),
    (".terraform.d/credentials.tfrc.json", Shape::Login),
    (".terraformrc", Shape::Settings),
    (".config/doctl/config.yaml", Shape::Settings),
    (".config/hcloud/cli.toml", Shape::Settings),
    (".fly/config.yml", Shape::Settings),
    (".config/rclone/rclone.conf", Shape::Settings),
    (".s3cfg", Shape::Settings),
    (".boto", Shape::Settings),
    (".databrickscfg", Shape::Settings),
    // git and its hosts.
    (".git-credentials", Shape::Any),
    (".config/git/credentials", Shape::Any),
    (".gitconfig", Shape::Settings),
    (".config/git/config", Shape::Settings),
    (".config/gh/hosts.yml", Shape::Login),
    (".config/glab-cli/config.yml", Shape::Login),
    (".config/hub", Shape::Login),
    (".config/tea/config.yml", Shape::Login),
    (".netrc", Shape::Netrc),
    // Registries of packages and images.
    (".npmrc", Shape::Login),
    (".yarnrc.yml", Shape::Login),
    (".pypirc", Shape::Settings),
    (".config/pip/pip.conf", Shape::Settings),
    (".pip/pip.conf", Shape::Settings),
    (".cargo/credentials.toml", Shape::Login),
    (".cargo/credentials", Shape::Login),
    (".gem/credentials", Shape::Login),
    (".m2/settings.xml", Shape::Settings),
    (".gradle/gradle.properties", Shape::Settings),
    (".composer/auth.json", Shape::Login),
    (".config/composer/auth.json", Shape::Login),
    (".docker/config.json", Shape::Login),
    (".config/containers/auth.json", Shape::Login),
    // Databases.
    (".pgpass", Shape::LastField),
    (".my.cnf", Shape::Settings),
    // Editors.
    (".config/Code/User/settings.json", Shape::Settings),
    (".config/Code/User/mcp.json", Shape::Settings),
    (".config/Cursor/User/settings.json", Shape::Settings),
    (".cursor/mcp.json", Shape::Settings),
    (".config/zed/settings.json", Shape::Settings),
    (".codeium/windsurf/mcp_config.json", Shape::Settings),
    (".continue/config.json", Shape::Settings),
    (".continue/config.yaml", Shape::Settings),
    (".config/github-copilot/apps.json", Shape::Login),
    (".config/github-copilot/hosts.json", Shape::Login),
    (".emacs.d/.authinfo", Shape::Netrc),
    (".authinfo", Shape::Netrc),
    // Agents.
    (".claude.json", Shape::Settings),
    (".claude/.credentials.json", Shape::Login),
    (".claude/settings.json", Shape::Settings),
    (".claude/settings.local.json", Shape::Settings),
    (".codex/auth.json", Shape::Login),
    (".codex/config.toml", Shape::Settings),
    (".gemini/oauth_creds.json", Shape::Login),
    (".gemini/settings.json", Shape::Settings),
    (".gemini/.env", Shape::Settings),
    (".local/share/opencode/auth.json", Shape::Login),
    (".config/opencode/opencode.json", Shape::Settings),
    (".config/goose/config.yaml", Shape::Settings),
    (".aider.conf.yml", Shape::Settings),
    (".config/sandbox/config.yaml", Shape::Settings),
    // Keys.
    (".ssh", Shape::Keys),
];

/// Folders of a project that hold what others wrote, or what is built; nobody keeps a key there by hand.
pub(super) const PASSED_OVER: [&str; 8] =
    ["node_modules", "target", ".venv", "venv", "__pycache__", ".tox", ".gradle", "vendor"];

/// What is looked for in a file that is called so, in whichever folder; none for a file that tells nothing by its path.
pub(super) fn shape_of(path: &str) -> Option<Shape> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let telling = |ending: &str| path == ending || path.ends_with(&format!("/{ending}"));
    // A template shows the names of variables and no values.
    let template = [".example", ".sample", ".template", ".dist"].iter().any(|ending| name.ends_with(ending));
    if let Some((_, shape)) = HOME.iter().find(|(known, shape)| *shape != Shape::Keys && telling(known)) {
        return Some(*shape);
    }
    let settings = [
        ".git/config",
        ".mcp.json",
        ".vscode/settings.json",
        ".vscode/mcp.json",
        ".zed/settings.json",
        ".cargo/config.toml",
        "docker-compose.yml",
        "compose.yaml",
        "terraform.tfvars",
        "local.settings.json",
        ".claude/settings.local.json",
    ];
    match name {
        _ if template => None,
        _ if name == ".env" || name.starts_with(".env.") || name.ends_with(".env") => Some(Shape::Settings),
        _ if settings.iter().any(|known| telling(known)) => Some(Shape::Settings),
        "id_rsa" | "id_ed25519" | "id_ecdsa" | "id_dsa" => Some(Shape::Keys),
        _ if name.ends_with(".pem") || name.ends_with(".key") || name.ends_with(".p8") => Some(Shape::Keys),
        _ => None,
    }
}
