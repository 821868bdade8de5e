//! `networking.k8s.io/v1` Ingress: listed, because clients ask for it by name, and never made: nothing
//! here would act on it.

use crate::{
    k8s::api::networking::v1::Ingress,
    kind::{Kind, Names, Scope},
};

impl Kind for Ingress {
    const NAMES: Names =
        Names { plural: "ingresses", singular: "ingress", short: &["ing"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/ingress";
    const REFUSED: Option<&'static str> =
        Some("no ingress controller is part of this cluster; expose pods with a Service");
}
