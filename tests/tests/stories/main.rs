//! Stories that users live, told to the real binary by the real kubectl, with real containers and volumes.

mod access;
mod backup;
mod clients;
mod doctor;
mod every_volume;
mod example;
mod full_disk;
mod host_path;
mod hosts;
mod image;
mod killed;
mod kubectl;
mod local_class;
mod manifest;
mod ordered_set;
mod pods;
mod pressure;
mod probe;
mod refusal;
mod refused;
mod registry;
mod restart;
mod services;
mod side_by_side;
mod streams;
mod workloads;
