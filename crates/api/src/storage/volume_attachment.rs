//! `storage.k8s.io/v1` VolumeAttachment: the wish that a volume be attached to a node, and how it went.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, ValidateVolumeAttachment and Update.

use crate::{
    field::Errors,
    k8s::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus, VolumeError},
    kind::{Column, Format, Kind, Names, Scope, Subresource},
    meta::{
        absent::{same, text as plain},
        columns::{age, name, text, truth, truths},
        names,
    },
};

/// All metadata that an attach call answers, in bytes.
const METADATA_MOST: usize = 256 * 1024;
/// Longest message of an error, in bytes.
const MESSAGE_MOST: usize = 1024;

impl Kind for VolumeAttachment {
    const NAMES: Names = Names {
        plural: "volumeattachments",
        singular: "volumeattachment",
        short: &[],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/volumeattachments";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<VolumeAttachment>] = &[
        name(),
        Column {
            format: Format::Name,
            ..text("Attacher", "The driver that attaches.", |it: &VolumeAttachment, _| {
                it.spec.attacher.as_str().into()
            })
        },
        text("PV", "The volume.", |it, _| volume(it).into()),
        text("Node", "The node.", |it, _| it.spec.node_name.as_str().into()),
        truths("Attached", "Whether it is attached.", |it, _| {
            truth(it.status.as_ref().map(|it| it.attached))
        }),
        age(),
    ];

    fn default(&mut self) {
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(&mut self, old: &VolumeAttachment) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &VolumeAttachment) {
        self.spec.clone_from(&old.spec);
        let (meta, before) = (&mut self.metadata, &old.metadata);
        meta.labels.clone_from(&before.labels);
        meta.annotations.clone_from(&before.annotations);
        meta.finalizers.clone_from(&before.finalizers);
        meta.owner_references.clone_from(&before.owner_references);
    }

    fn validate(&self, errors: &mut Errors) {
        names::driver("spec.attacher", &self.spec.attacher, errors);
        let source = &self.spec.source;
        let path = "spec.source";
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (&source.inline_volume_spec, source.persistent_volume_name.as_deref()) {
            (None, None) => errors.required(path, one),
            (Some(_), Some(_)) => errors.forbidden(path, one),
            (None, Some("")) => {
                let detail = "must specify non empty persistentVolumeName";
                errors.required(format!("{path}.persistentVolumeName"), detail);
            }
            (None, Some(name)) => {
                names::dns_subdomain(format!("{path}.persistentVolumeName"), name, errors);
            }
            (Some(spec), None) if spec.csi.is_none() => {
                let detail = "has to be specified in the context of inline volumes";
                errors.required(format!("{path}.inlineVolumeSpec.csi"), detail);
            }
            (Some(_), None) => {}
        }
        names::dns_subdomain("spec.nodeName", &self.spec.node_name, errors);
        let Some(status) = &self.status else { return };
        let metadata = status.attachment_metadata.iter().flatten();
        if metadata.map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_MOST {
            errors.too_long("status.attachmentMetadata", METADATA_MOST);
        }
        let failures =
            [("attachError", &status.attach_error), ("detachError", &status.detach_error)];
        for (field, failure) in failures {
            validate_failure(&format!("status.{field}"), failure.as_ref(), errors);
        }
    }

    fn validate_update(&self, old: &VolumeAttachment, errors: &mut Errors) {
        if !same(&self.spec, &old.spec) {
            let shown = serde_json::to_string(&self.spec).expect("API objects are plain data");
            errors.invalid("spec", shown, "field is immutable");
        }
    }

    fn validate_status(&self, _old: &VolumeAttachment, errors: &mut Errors) {
        self.validate(errors);
    }

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        vec![("volume", volume(self).to_owned()), ("node", self.spec.node_name.clone())]
    }
}

/// The volume's name; empty for a volume that is written inline.
pub fn volume(attachment: &VolumeAttachment) -> &str {
    plain(&attachment.spec.source.persistent_volume_name)
}

/// Whether the driver has said that it is done.
pub fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|it| it.attached)
}

fn validate_failure(path: &str, failure: Option<&VolumeError>, errors: &mut Errors) {
    let Some(failure) = failure else { return };
    if plain(&failure.message).len() > MESSAGE_MOST {
        // Upstream names the other limit here.
        errors.too_long(format!("{path}.message"), METADATA_MOST);
    }
    if let Some(code) = failure.error_code.filter(|it| *it < 0) {
        let most = i64::from(i32::MAX);
        names::in_range(format!("{path}.errorCode"), i64::from(code), 0, most, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn attachment(source: Value) -> VolumeAttachment {
        let spec = json!({"attacher": "d.example.com", "nodeName": "n1", "source": source});
        from_value(&json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
    }

    #[test]
    fn attaches_one_volume_for_good() {
        let old = attachment(json!({"persistentVolumeName": "v"}));
        assert_eq!(row(&old), "a | d.example.com | v | n1 | false | <unknown>");
        assert_eq!(old.index_keys(), [("volume", "v".to_owned()), ("node", "n1".to_owned())]);
        let mut errors = Errors::default();
        attachment(json!({"persistentVolumeName": "w"})).validate_update(&old, &mut errors);
        assert!(errors.message().ends_with("field is immutable"));
        let mut errors = Errors::default();
        attachment(json!({})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        );
    }
}
