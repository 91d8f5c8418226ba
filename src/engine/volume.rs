//! Volumes of the engine, on its disk or in memory.

use std::collections::BTreeMap;

use bollard::models::Volume;
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};

use super::container::VolumeSpec;
use super::error::{EngineError, Kind, optional};
use super::{CALL_LIMIT, Engine, check_name, label_filter, translate};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSummary {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the `local` driver.
    pub options: BTreeMap<String, String>,
    /// When it was created (RFC 3339).
    pub created_at: Option<String>,
}

impl From<Volume> for VolumeSummary {
    fn from(volume: Volume) -> Self {
        Self {
            name: volume.name,
            labels: volume.labels.into_iter().collect(),
            options: volume.options.into_iter().collect(),
            created_at: volume.created_at,
        }
    }
}

impl Engine {
    /// Creates a volume. One that is there and has the same options is taken as it is, whoever made it: the engine does not
    /// tell the two apart, so look at its labels first where that matters.
    ///
    /// # Errors
    ///
    /// [`EngineError::NameTaken`] when there is one with other options: what is meant for memory must not reach a disk.
    pub async fn create_volume(&self, spec: &VolumeSpec) -> Result<(), EngineError> {
        check_name(Kind::Volume, &spec.name)?;
        let taken = || EngineError::NameTaken { kind: Kind::Volume, name: spec.name.clone() };
        let request = self.client().create_volume(translate::volume(spec));
        let created = match self.call("create a volume", CALL_LIMIT, request).await {
            Err(error) if error.status() == Some(409) => return Err(taken()),
            other => VolumeSummary::from(other?),
        };
        if created.options != translate::volume_options(spec) {
            return Err(taken());
        }
        Ok(())
    }

    /// The volume of this name, if there is one.
    pub async fn inspect_volume(&self, name: &str) -> Result<Option<VolumeSummary>, EngineError> {
        check_name(Kind::Volume, name)?;
        let answer = self.call("inspect a volume", CALL_LIMIT, self.client().inspect_volume(name)).await;
        Ok(optional(answer)?.map(VolumeSummary::from))
    }

    /// All volumes with these labels (`key=value` or `key`).
    pub async fn volumes(&self, labels: &[String]) -> Result<Vec<VolumeSummary>, EngineError> {
        let options = ListVolumesOptions { filters: label_filter(labels) };
        let listed = self.call("list volumes", CALL_LIMIT, self.client().list_volumes(Some(options))).await?;
        Ok(listed.volumes.unwrap_or_default().into_iter().map(VolumeSummary::from).collect())
    }

    /// Removes a volume. That there is none is fine.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] when a container still uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        check_name(Kind::Volume, name)?;
        let request = self.client().remove_volume(name, Some(RemoveVolumeOptions::default()));
        match optional(self.call("remove a volume", CALL_LIMIT, request).await) {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(409) => {
                Err(EngineError::InUse { kind: Kind::Volume, name: name.to_owned() })
            }
            Err(error) => Err(error),
        }
    }
}
