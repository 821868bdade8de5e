//! What a container is asked, and what it does when it starts and stops.

use crate::{
    core::volume_source::need,
    field::Errors,
    k8s::{
        api::core::v1::{
            ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe,
            SleepAction, TCPSocketAction,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
    meta::{
        absent::{list, text},
        names,
    },
};

pub(super) fn probe(path: &str, it: &Probe, errors: &mut Errors) {
    let handler = Handler {
        exec: it.exec.as_ref(),
        get: it.http_get.as_ref(),
        socket: it.tcp_socket.as_ref(),
        grpc: it.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(path, None, errors);
    let numbers = [
        ("initialDelaySeconds", it.initial_delay_seconds),
        ("timeoutSeconds", it.timeout_seconds),
        ("periodSeconds", it.period_seconds),
        ("successThreshold", it.success_threshold),
        ("failureThreshold", it.failure_threshold),
    ];
    for (field, number) in numbers {
        names::not_negative(format!("{path}.{field}"), i64::from(number.unwrap_or(0)), errors);
    }
    if let Some(seconds) = it.termination_grace_period_seconds.filter(|it| *it <= 0) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        errors.invalid(path, seconds, "must be greater than 0");
    }
}

/// Signals that a container can be stopped with, sorted as upstream prints them.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

pub(super) fn hooks(path: &str, lifecycle: &Lifecycle, spec: &PodSpec, errors: &mut Errors) {
    let grace = spec.termination_grace_period_seconds;
    if let Some(signal) = lifecycle.stop_signal.as_deref() {
        stop_signal(&format!("{path}.stopSignal"), signal, spec, errors);
    }
    let of = |it: &LifecycleHandler, path: &str, errors: &mut Errors| {
        let handler = Handler {
            exec: it.exec.as_ref(),
            get: it.http_get.as_ref(),
            socket: it.tcp_socket.as_ref(),
            grpc: None,
            sleep: it.sleep.as_ref(),
        };
        handler.validate(path, grace, errors);
    };
    if let Some(it) = &lifecycle.post_start {
        of(it, &format!("{path}.postStart"), errors);
    }
    if let Some(it) = &lifecycle.pre_stop {
        of(it, &format!("{path}.preStop"), errors);
    }
}

fn stop_signal(path: &str, signal: &str, spec: &PodSpec, errors: &mut Errors) {
    let known = match spec.os.as_ref().map_or("", |it| it.name.as_str()) {
        "" => {
            let detail = "may not be set for containers with empty `spec.os.name`";
            errors.forbidden(path, detail);
            return;
        }
        "windows" => &["SIGKILL", "SIGTERM"][..],
        _ => &SIGNALS[..],
    };
    if !known.contains(&signal) {
        errors.not_supported(path, signal, known);
    }
}

/// What a probe or a hook does: one thing.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    get: Option<&'a HTTPGetAction>,
    socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handler<'_> {
    fn validate(&self, path: &str, grace: Option<i64>, errors: &mut Errors) {
        let fields = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.get.is_some()),
            ("tcpSocket", self.socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut found = false;
        for (field, _) in fields.into_iter().filter(|it| it.1) {
            let path = format!("{path}.{field}");
            if found {
                errors.forbidden(path, "may not specify more than 1 handler type");
            } else {
                self.action(field, &path, grace, errors);
            }
            found = true;
        }
        if !found {
            errors.required(path, "must specify a handler type");
        }
    }

    fn action(&self, field: &str, path: &str, grace: Option<i64>, errors: &mut Errors) {
        if let (Some(exec), "exec") = (self.exec, field)
            && list(&exec.command).is_empty()
        {
            errors.required(format!("{path}.command"), "");
        }
        if let (Some(get), "httpGet") = (self.get, field) {
            need(path, "path", text(&get.path), errors);
            port(format!("{path}.port"), &get.port, errors);
            let (scheme, known) = (text(&get.scheme), ["HTTP", "HTTPS"]);
            if !known.contains(&scheme) {
                errors.not_supported(format!("{path}.scheme"), scheme, &known);
            }
            for header in list(&get.http_headers) {
                names::header(format!("{path}.httpHeaders"), &header.name, errors);
            }
        }
        if let (Some(socket), "tcpSocket") = (self.socket, field) {
            port(format!("{path}.port"), &socket.port, errors);
        }
        if let (Some(grpc), "grpc") = (self.grpc, field) {
            names::port(format!("{path}.port"), grpc.port, errors);
        }
        if let (Some(sleep), "sleep", Some(grace)) = (self.sleep, field, grace)
            && !(0..=grace).contains(&sleep.seconds)
        {
            let detail = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            );
            errors.invalid(path, sleep.seconds, detail);
        }
    }
}

fn port(path: String, port: &IntOrString, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => names::port(path, *number, errors),
        IntOrString::String(name) => names::port_name(path, name, errors),
    }
}
