//! Objects that tests begin with.

use super::FakeClient;
use api::{Kind, codec::from_value, core::v1::Pod};
use client::Client;
use world::{Change, ObjectKey};

pub(crate) fn yaml<T: Kind>(text: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("YAML");
    from_value(&value).expect("an object of the API")
}

/// A pod with an emptyDir and a claim, and the claim with its volume.
pub(crate) fn with_volumes(client: &FakeClient) -> Pod {
    client.put::<api::core::v1::PersistentVolume>(yaml(
        "
metadata: {name: pv-1}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  csi: {driver: local.csi.stanchion.dev, volumeHandle: h-1, fsType: ext4}
  claimRef: {namespace: default, name: data, uid: claim-1}
",
    ));
    let claim: api::core::v1::PersistentVolumeClaim = yaml(
        "
metadata: {name: data, namespace: default, uid: claim-1}
spec: {volumeName: pv-1, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    );
    client.put(claim.clone());
    let key = ObjectKey::new("default", "data");
    let world = client.world();
    let mut claim = world.get::<api::core::v1::PersistentVolumeClaim>(&key).unwrap().to_owned();
    claim.status.get_or_insert_default().phase = Some("Bound".to_owned());
    client.apply(&Change::status(claim)).unwrap();
    yaml(
        "
metadata: {name: web-0, namespace: default, uid: uid-of-web-0}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: app:1
    volumeMounts: [{name: data, mountPath: /data}, {name: scratch, mountPath: /scratch}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: scratch, emptyDir: {}}
",
    )
}
