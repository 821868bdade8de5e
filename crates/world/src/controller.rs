//! A control loop, without the loop.

use crate::{CallFailure, Change, ObjectKey, Outcome, Plan, Touched, VolumeCall, World};
use api::{Failure, KindRef};
use stdx::Timestamp;

pub trait Controller: Send + Sync {
    /// Names the controller in logs, metrics, events and leases.
    fn name(&self) -> &'static str;

    /// Who tells its events, where upstream's name for that is another.
    fn reporter(&self) -> &'static str {
        self.name()
    }

    /// Which changes wake which keys.
    fn watches(&self) -> Vec<Watch>;

    /// Decides what to do next about `key`. Called again after the plan is carried out, and whenever
    /// something that it watches changes; it never needs to remember anything between calls.
    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan;

    /// Decides what to write once a call of this controller has returned.
    fn returned(
        &self,
        _world: &World,
        _key: &ObjectKey,
        _call: &VolumeCall,
        _result: &Result<Outcome, CallFailure>,
        _now: Timestamp,
    ) -> Plan {
        Plan::default()
    }

    /// Decides what to tell, and to note in a status, once the door has refused a commit of this
    /// controller for a reason that looking again does not mend: a quota, an invalid template. The key
    /// comes back with back-off in any case.
    fn refused(
        &self,
        _world: &World,
        _key: &ObjectKey,
        _changes: &[Change],
        _failure: &Failure,
        _now: Timestamp,
    ) -> Plan {
        Plan::default()
    }
}

/// One reason to wake up.
#[derive(Clone)]
pub enum Watch {
    /// A change to an object of this kind wakes the object's own key.
    Of(KindRef),
    /// A change to an object of this kind wakes its controller's key, if that is of the other kind.
    OwnedBy(KindRef, KindRef),
    /// A change to an object of this kind wakes the keys that this function names.
    Mapped(KindRef, fn(&World, &Touched) -> Vec<ObjectKey>),
    /// A change to an object of any kind wakes the keys that this function names.
    Any(fn(&World, &Touched) -> Vec<ObjectKey>),
}

impl Watch {
    pub fn of<T: api::Kind>() -> Watch {
        Watch::Of(api::kind_of::<T>().clone())
    }

    /// Changes of `T` wake the `O` that controls it.
    pub fn owned<T: api::Kind, O: api::Kind>() -> Watch {
        Watch::OwnedBy(api::kind_of::<T>().clone(), api::kind_of::<O>().clone())
    }

    pub fn mapped<T: api::Kind>(keys: fn(&World, &Touched) -> Vec<ObjectKey>) -> Watch {
        Watch::Mapped(api::kind_of::<T>().clone(), keys)
    }
}
