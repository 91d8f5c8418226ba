//! The project on its way into the sandbox: the branch, then what was listed besides.

use super::{ExecSession, LaunchError, LaunchInput};
use crate::credential::spec::Delivery;
use crate::session::plan::WORKSPACE;
use crate::workspace::{source, submodule};

/// Clones the branch, the submodules and the large files, and gives the commit that the agent starts at. A clone that an
/// earlier session left stays as it is.
pub(super) async fn hand_over(
    input: &LaunchInput<'_>,
    client: &mut ExecSession,
    warnings: &mut Vec<String>,
) -> Result<String, LaunchError> {
    let spec = &input.manifest.workspace;
    let hosts: Vec<String> = (input.manifest.credentials.values())
        .filter_map(|spec| match &spec.deliver {
            Delivery::Git { host } => Some(host.to_string()),
            _ => None,
        })
        .collect();
    let id = &input.plan.id;
    let request = source::clone_request(WORKSPACE, spec, input.source, &id.project, &id.name, &hosts);
    if let Some(kept) = &input.kept {
        client.clone_bundle(request, tokio::io::empty()).await?;
        return Ok(kept.start.clone());
    }
    // A submodule's work is attributed and sent as that around it.
    let settings: Vec<(String, String)> =
        request.config.iter().filter(|(key, _)| !key.starts_with("submodule.")).cloned().collect();
    let mut bundle = source::open_bundle(&spec.source, spec, input.source).await?;
    let head = client.clone_bundle(request, &mut bundle).await?;
    bundle.finish().await?;
    for one in &input.source.submodules {
        let opened = submodule::open_bundle(one, input.source, spec.depth, WORKSPACE, settings.clone()).await?;
        let (request, mut bundle) = opened;
        client.clone_bundle(request, &mut bundle).await?;
        bundle.finish().await?;
    }
    if !input.source.large_files.is_empty() && !client.large_files(WORKSPACE, &input.source.large_files).await? {
        warnings.push(
            "the image has no git-lfs: the large files are in the clone's store, and pointers stand in their places"
                .into(),
        );
    }
    Ok(head.unwrap_or_default())
}
