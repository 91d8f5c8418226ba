//! What to do when a credential cannot be used.

use crate::commands::Failure;
use crate::credential::aws::StsError;
use crate::credential::federation::FederationError;
use crate::credential::github::GithubError;
use crate::credential::identity::IdentityError;
use crate::credential::key_source::KeyError;
use crate::credential::oauth::OauthError;
use crate::credential::openai::OpenaiError;
use crate::credential::store::StoreError;
use crate::credential::vault::{CertificateFault, VaultError};
use crate::credential::{CredentialError, env_file};

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Failure::new("credential", &error, advice(&error))
    }
}

/// What to do about it.
pub fn advice(error: &CredentialError) -> String {
    match error {
        CredentialError::Store(error) => store_advice(error),
        CredentialError::EnvFile(env_file::EnvFileError::Readable { path, .. }) => {
            format!("run `chmod 600 {}`", path.display())
        }
        CredentialError::EnvFile(env_file::EnvFileError::Tracked { path }) => {
            format!("run `git rm --cached {0}`, add it to .gitignore, and change the values", path.display())
        }
        CredentialError::EnvFile(env_file::EnvFileError::Unasked { .. }) => {
            "make `git status` work in that folder; a file that git may track is not used".to_owned()
        }
        CredentialError::EnvFile(env_file::EnvFileError::Line { .. }) => {
            "write NAME=value, NAME='value' or NAME=\"value\" on one line".to_owned()
        }
        CredentialError::EnvFile(_) => {
            "keep agents' values in a file of their own, such as `.env.agent`, with mode 600".to_owned()
        }
        CredentialError::Exec(_) => "run the command by hand and see what it says".to_owned(),
        CredentialError::Vault(error) => vault_advice(error),
        CredentialError::Github(error) => github_advice(error),
        CredentialError::Aws(error) => aws_advice(error),
        CredentialError::Openai(error) => openai_advice(error),
        CredentialError::Federation(error) => federation_advice(error),
        CredentialError::Oauth(error) => oauth_advice(error),
        CredentialError::Fingerprint(_) => "make the launcher's state folder writable for you".to_owned(),
        CredentialError::Shared { .. } => {
            "issue another one for this project; or declare `shared_with: { projects: […], reason: … }`".to_owned()
        }
        CredentialError::Personal { .. } => {
            "make a key for this project alone; or write `accept_personal: REASON`, which the report shows".to_owned()
        }
        CredentialError::TooOld { .. } => "rotate it with `sandbox credential rotate`".to_owned(),
        CredentialError::Expired(_) => "log in to the issuer again, and compare this machine's clock".to_owned(),
        CredentialError::Size(_) => "look at what was given: the value alone, and not nothing".to_owned(),
        CredentialError::Keys => {
            "use the provider `aws-sts`, or one whose value is what a `credential_process` prints".to_owned()
        }
        CredentialError::FileTwice(_) => "give them different names in `deliver: { file: NAME }`".to_owned(),
    }
}

/// What to do when the store cannot be used.
pub(super) fn store_advice(error: &StoreError) -> String {
    match error {
        StoreError::Absent(name) => format!("set it with `sandbox credential set {name}`"),
        StoreError::IdentityLost { path } => format!(
            "put the identity back at {}, or name where it is with SANDBOX_AGE_IDENTITY. If it is lost: the next \
             `sandbox credential set` makes a new one; somebody else in the recipients file then runs `sandbox credential \
             recipients add` with your new key and `sandbox credential rekey`. Without anybody else, set the values anew",
            path.display()
        ),
        StoreError::IdentityReadable { path, .. } => {
            format!("run `chmod 600 {}`", path.display())
        }
        StoreError::IdentityLocked { .. } => {
            "unset SANDBOX_AGE_IDENTITY to have a key of its own made, or name an age identity with it".to_owned()
        }
        StoreError::Identity { .. } => {
            "name an age identity or an ssh ed25519 key that you can read with SANDBOX_AGE_IDENTITY".to_owned()
        }
        StoreError::NotListed { path, public } => format!(
            "if you had another key, put it back in place of the new one; otherwise `sandbox credential recipients add \
             YOUR-NAME {public}`, which writes it to {}, and have somebody who can open the values run `sandbox credential \
             rekey`",
            path.display()
        ),
        StoreError::NotARecipient { .. } => {
            "ask somebody of `sandbox credential recipients ls` to add your public key with `recipients add`, and to run \
             `sandbox credential rekey`"
                .to_owned()
        }
        StoreError::Damaged { .. } => "take the file from the repository's history, or set the value anew".to_owned(),
        StoreError::TooLarge(_) => "give the value alone, not a whole file".to_owned(),
        StoreError::Misplaced { .. } => "remove the file and set the value with `sandbox credential set`".to_owned(),
        StoreError::IdentityElsewhere { path } => format!(
            "move it there: `secret-tool store --label='sandbox: age identity' application sandbox kind age-identity < {0}`, \
             then remove {0}; or take `identity: keyring` out of config.yaml",
            path.display()
        ),
        StoreError::NotAKey => {
            "give a name, and a public key: age1…, `ssh-ed25519 …` in quotes, or a file of it such as ~/.ssh/id_ed25519.pub; \
             if a private one stood there, it is in your shell's history now: make another"
                .to_owned()
        }
        StoreError::Listed { .. } | StoreError::NoRecipient { .. } => "see `sandbox credential recipients ls`".to_owned(),
        StoreError::OwnKey { .. } => {
            "have somebody else take it out, and run `sandbox credential rekey` before or after".to_owned()
        }
        StoreError::Recipient { .. } => "write one age or ssh public key a line; comments start with #".to_owned(),
        _ => "make the file readable and writable for you".to_owned(),
    }
}

fn vault_advice(error: &VaultError) -> String {
    let next = match error {
        VaultError::NoAddress => "write `address: https://HOST:8200` in sandbox.yaml, or set VAULT_ADDR or BAO_ADDR",
        VaultError::Address { .. } => "write https://HOST:PORT; http:// is for loopback alone",
        VaultError::Signing(error) => return identity_advice(error),
        VaultError::NoToken => "run `vault login` or `bao login`, or set VAULT_TOKEN or BAO_TOKEN",
        VaultError::TokenFile { .. } => "make the file readable for you alone, or log in again",
        VaultError::Certificates { .. } => "name a file of PEM certificates with VAULT_CACERT or BAO_CACERT",
        VaultError::File(_) => "keep the secret alone in a file of mode 600 that git does not track",
        VaultError::Command(_) => "run the command by hand and see what it says",
        VaultError::Identity => {
            "give the certificate, those of its authorities and the private key in PEM, one after the other"
        }
        VaultError::NotText => "look at what the file, the command or the variable gives",
        VaultError::Unreachable { .. } => "compare the address with the server's, and whether a proxy stands between",
        VaultError::Untrusted { fault, .. } => match fault {
            CertificateFault::Issuer => "set VAULT_CACERT or BAO_CACERT to the file with your authority's certificate",
            CertificateFault::Expired => "ask who runs the server to renew it, or look at the clock of this machine",
            CertificateFault::Early => "look at the clock of this machine",
            CertificateFault::Name => "use a name that the certificate has as `address`",
            CertificateFault::Other => "ask who runs the server; nothing was sent to it",
        },
        VaultError::Timeout { .. } | VaultError::Busy { .. } => "try again later, or ask who runs the server",
        VaultError::Sealed(_) => "ask who runs the server to unseal it",
        VaultError::Denied { path, .. } if path.starts_with("auth/token/") => {
            "log in again; if the token is good, its policy needs `update` on auth/token/create and \
             auth/token/revoke-accessor"
        }
        VaultError::Denied { path, .. } if path.ends_with("/login") => {
            "compare the role, `mount` and what it logs in with, and when that runs out"
        }
        VaultError::Denied { path, .. } => {
            return format!("ask for a policy with `path \"{path}\" {{ capabilities = [\"read\"] }}`, or log in again");
        }
        VaultError::NoNamespace(_) => "compare `namespace`, VAULT_NAMESPACE and BAO_NAMESPACE with what the server has",
        VaultError::Absent { .. } => "compare `path` and `namespace` with `vault kv get` or `vault read`",
        VaultError::Deleted { .. } => "write a new version, or bring the old one back with `vault kv undelete`",
        VaultError::Failed { .. } => "compare `auth`, `path` and `policies` with what the server has",
        VaultError::Redirection(_) => "name the active server with `address`",
        VaultError::Field(_) => "compare `field` or `fields` with what `vault read` shows",
        VaultError::Intercepted => {
            "treat the secret id as stolen: revoke it and the role's tokens, find out who opened it, then wrap a new one"
        }
        VaultError::Wider(_) => "ask for a role or token that grants no more, or list the policies in `policies`",
        VaultError::Client(_) | VaultError::Answer(_) | VaultError::Handle => "compare the version of the server",
    };
    next.to_owned()
}

/// What to do when the sandbox's identity is not signed.
pub(super) fn identity_advice(error: &IdentityError) -> String {
    match error {
        IdentityError::NoIssuer => {
            "write `credentials: { issuer: https://HOST/PATH }` in config.yaml: the address under which your team serves \
             what `sandbox credential identity` prints"
                .to_owned()
        }
        IdentityError::File { path, .. } => format!("make {} readable and writable for you", path.display()),
        IdentityError::Readable { path, .. } => format!(
            "run `chmod 600 {}`, then `sandbox credential identity --rotate`: others may have the key, so take it out of \
             the published document too",
            path.display()
        ),
        IdentityError::Damaged { path, .. } => {
            format!("move {} away; a new one is made, and its public key has to be published", path.display())
        }
        IdentityError::Key(_) => "look why the kernel gives no random bytes".to_owned(),
    }
}

fn federation_advice(error: &FederationError) -> String {
    let next = match error {
        FederationError::Signing(error) => return identity_advice(error),
        FederationError::Address { .. } => "write https://HOST; http:// is for loopback alone",
        FederationError::Client(_) => "look whether this machine has certificate authorities",
        FederationError::TooLong => "write shorter values in sandbox.yaml",
        FederationError::Unreachable { .. } => "compare `address`, and whether a proxy stands between",
        FederationError::Timeout { .. } | FederationError::Busy { .. } => "try again later",
        FederationError::Refused { .. } => {
            "compare what `sandbox credential identity` prints with what the issuer was told, whether the published \
             document has this launcher's key, and this machine's clock"
        }
        FederationError::Answer { .. } | FederationError::Wider { .. } => "look whether it is the issuer that answers",
        FederationError::Handle => "run `sandbox down` with the version of sandbox that made it",
    };
    next.to_owned()
}

fn github_advice(error: &GithubError) -> String {
    let next = match error {
        GithubError::Address { .. } => {
            "write https://api.github.com, https://HOST/api/v3 or https://api.TENANT.ghe.com; http:// is for loopback alone"
        }
        GithubError::KeySource(error) => {
            return key_advice(error, "one that was in a commit has to be replaced in the app's settings");
        }
        GithubError::Key => "download a private key from the app's settings; it begins with BEGIN RSA PRIVATE KEY",
        GithubError::Unreachable { .. } => {
            "compare `address`, and whether this machine trusts the server's certificate"
        }
        GithubError::Timeout { .. } | GithubError::Busy { .. } => {
            "try again later; www.githubstatus.com says what is wrong"
        }
        GithubError::Unauthenticated { .. } => {
            "compare `app` and the private key with the app's settings, and this machine's clock"
        }
        GithubError::Suspended(_) => "ask an owner of the account to end the suspension in the settings of its apps",
        GithubError::Forbidden(_) => "ask an owner of the account whether a list of allowed addresses keeps you out",
        GithubError::NoInstallation { .. } => {
            "compare `installation` with the number at the end of the installation's address, and `app` with its app; \
             it may have been uninstalled"
        }
        GithubError::Repositories(_) => {
            "compare `repositories` with those that the installation may use; write them without their owner"
        }
        GithubError::Permissions(_) => "ask for less in `permissions`, or have an owner grant the app what it asks for",
        GithubError::Wider { .. } => "report this to who runs the server; nothing was delivered",
        GithubError::StillGood => "look whether it is GitHub that answers at `address`; the token ends by itself",
        GithubError::Client(_) | GithubError::Failed { .. } | GithubError::Answer(_) => {
            "compare `address` and its version"
        }
        GithubError::Random(_) => "look why the kernel gives no random bytes",
        GithubError::Handle => "run `sandbox down` with the version of sandbox that made it",
    };
    next.to_owned()
}

fn key_advice(error: &KeyError, leaked: &str) -> String {
    match error {
        KeyError::File { .. } => "compare `key_file`, and make the file readable for you alone".to_owned(),
        KeyError::Place { path, .. } => {
            format!(
                "keep the key in a plain file outside the project, and run `chmod 600 {}`; {leaked}",
                path.display()
            )
        }
        KeyError::Command(_) => "run the command by hand and see what it says".to_owned(),
    }
}

fn openai_advice(error: &OpenaiError) -> String {
    let next = match error {
        OpenaiError::Address { .. } => "write https://api.openai.com; http:// is for loopback alone",
        OpenaiError::KeySource(error) => {
            return key_advice(error, "one that was in a commit has to be deleted in the organisation's settings");
        }
        OpenaiError::Key => "look at what `key_file` or `key_command` gives",
        OpenaiError::Client(_) => "look whether this machine has certificate authorities",
        OpenaiError::Unreachable { .. } => "compare `address`, and whether a proxy stands between",
        OpenaiError::Timeout { .. } | OpenaiError::Busy { .. } => {
            "try again later; status.openai.com says what is wrong"
        }
        OpenaiError::Unauthenticated(_) | OpenaiError::Forbidden(_) => {
            "give an admin key (sk-admin-…) of an owner of the organisation; keys of projects cannot make service accounts"
        }
        OpenaiError::NoProject(_) => "compare `project_id` with the project's settings, and whether it was archived",
        OpenaiError::Failed { .. } => "compare `project_id` and `ttl` with the organisation's policy for keys",
        OpenaiError::Wider { .. } => "look at the project's members at OpenAI; nothing was delivered",
        OpenaiError::StillThere | OpenaiError::Answer(_) => {
            "look whether it is OpenAI that answers at `address`, and at the project's service accounts there"
        }
        OpenaiError::Random(_) => "look why the kernel gives no random bytes",
        OpenaiError::Handle => "run `sandbox down` with the version of sandbox that made it",
    };
    next.to_owned()
}

fn oauth_advice(error: &OauthError) -> String {
    let next = match error {
        OauthError::LoggedOut(name) | OauthError::Over { name, .. } | OauthError::Elsewhere { name } => {
            return format!("log in again with `sandbox credential login {name}`");
        }
        OauthError::Address { .. } => "write https://HOST/PATH; http:// is for loopback alone",
        OauthError::Unreachable { .. } | OauthError::Timeout { .. } => {
            "look whether the issuer is there; what the sandboxes have lasts until it runs out"
        }
        OauthError::Failed { .. } => "compare `client_id`, `token_url` and `scopes` with what the issuer documents",
        OauthError::Refused { .. } => "get a new refresh token: this one was used, has run out or was withdrawn",
        OauthError::NotAToken => "give the refresh token alone, such as from the agent's own file with `jq -r`",
        OauthError::NoRefreshToken => "ask for one in `scopes`, which is `offline_access` at many issuers",
        OauthError::Wider => "log in with the account that has no more, or name what it has in `scopes`",
        OauthError::KeySource(error) => return key_advice(error, "one that was in a commit has to be replaced"),
        OauthError::NotASecret => "look at what `key_file` or `key_command` gives",
        OauthError::Listen { port: 0, .. } => "look why this machine lets nobody listen on 127.0.0.1",
        OauthError::Listen { .. } => "end the program that listens there, which may be another log-in, and try again",
        OauthError::Random(_) => "look why the kernel gives no random bytes",
        OauthError::Declined | OauthError::CodeExpired => "begin again, and confirm it in the browser in time",
        OauthError::Store(error) => return store_advice(error),
        OauthError::Damaged => "remove it with `sandbox credential rm NAME`, and log in again",
        OauthError::Lock { .. } => "make the launcher's state folder writable for you",
        OauthError::Busy { .. } => "look which other `sandbox` process hangs, and try again",
        OauthError::Client(_) | OauthError::Answer(_) => "look whether it is the issuer that answers at `token_url`",
        OauthError::Stopped => "try again",
        OauthError::Handle => "run `sandbox down` with the version of sandbox that made it",
    };
    next.to_owned()
}

fn aws_advice(error: &StsError) -> String {
    let next = match error {
        StsError::Address { .. } => "write https://HOST; http:// is for loopback alone",
        StsError::Identity(error) => return identity_advice(error),
        StsError::NoKeys { .. } => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a `profile` with keys; for a log-in by SSO write \
             `key_command: [aws, configure, export-credentials, --format, process]`"
        }
        StsError::File { .. } => "make the file readable for you",
        StsError::Command(_) | StsError::CommandAnswer => "run the command by hand and see what it says",
        StsError::KeyId => "look at the key's id in the environment or in the credentials file",
        StsError::Unreachable { .. } => "compare `region` or `address`",
        StsError::Timeout { .. } => "try again later",
        StsError::Refused { code, .. } => match code.as_str() {
            "AccessDenied" => {
                "let the role's trust policy name you, with sts:TagSession for `tags` and sts:SetSourceIdentity for \
                 `source_identity`, and let your own policies allow sts:AssumeRole"
            }
            "ExpiredToken" | "ExpiredTokenException" => "log in again: your own session is over",
            "InvalidClientTokenId" | "SignatureDoesNotMatch" => "compare your keys, and this machine's clock",
            "MalformedPolicyDocument" | "PackedPolicyTooLarge" => "compare `policy`, `policy_arns` and `tags`",
            "ValidationError" => "compare `ttl` with the role's longest session; when roles are chained it is 1h",
            "RegionDisabledException" => "write a `region` in which STS is active for the account",
            _ => "compare `role`, `region` and the role's trust policy",
        },
        StsError::Other(_) => "look whether it is AWS that answers at `address`",
        StsError::Client(_) | StsError::Answer(_) => "compare `address`",
        StsError::Handle => "run `sandbox down` with the version of sandbox that made it",
    };
    next.to_owned()
}
