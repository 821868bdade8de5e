//! `autoscaling/v2` HorizontalPodAutoscaler: listed, because clients ask for it by name, and never
//! made: nothing here would act on it.

use crate::{
    k8s::api::autoscaling::v2::HorizontalPodAutoscaler,
    kind::{Kind, Names, Scope},
};

impl Kind for HorizontalPodAutoscaler {
    const NAMES: Names = Names {
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short: &["hpa"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/horizontalpodautoscalers";
    const REFUSED: Option<&'static str> = Some(
        "nothing in this cluster scales by load: no metrics are collected to decide by; set the number of replicas with \"kubectl scale\"",
    );
}
