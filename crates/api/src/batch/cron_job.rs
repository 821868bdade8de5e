//! `batch/v1` CronJob: Jobs of one template, started when a schedule says so.
//!
//! Upstream: `pkg/apis/batch/validation/validation.go` (ValidateCronJobCreate), `pkg/registry/batch/cronjob`.

use super::{job, schedule};
use crate::{
    apps::templated::{self, Templated},
    field::{Errors, quoted},
    k8s::api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus},
        core::v1::PodTemplateSpec,
    },
    kind::{Cell, Column, Format, Kind, Names, Object, Scope, Subresource},
    meta::{
        self, Selector,
        absent::{fill, same, text},
        columns::{self, NONE, UNSET, age, name},
        names, next_generation,
    },
};
use schedule::{Schedule, ScheduleError};

/// On a Job: when it was to start, in the time zone of its CronJob.
pub const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// With a dash and the minute that follow, a Job's name still is a label.
const NAME_MOST: usize = 52;

/// Longest part of a time zone's name.
const ZONE_PART_MOST: usize = 14;

impl Kind for CronJob {
    const NAMES: Names =
        Names { plural: "cronjobs", singular: "cronjob", short: &["cj"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/cronjobs";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<CronJob>] = &[
        name(),
        columns::text("Schedule", "When it is due.", |it, _| it.spec.schedule.as_str().into()),
        columns::text("Timezone", "The time zone of the schedule.", |it, _| {
            it.spec.time_zone.as_deref().unwrap_or(NONE).into()
        }),
        Column {
            title: "Suspend",
            format: Format::Boolean,
            wide: false,
            description: "Whether it starts nothing for now.",
            cell: |it, _| match it.spec.suspend {
                Some(true) => "True".into(),
                Some(false) => "False".into(),
                None => UNSET.into(),
            },
        },
        columns::integer("Active", "Jobs that run.", |it, _| {
            let active = it.status.as_ref().and_then(|it| it.active.as_ref());
            Cell::Number(active.map_or(0, |it| i64::try_from(it.len()).unwrap_or(i64::MAX)))
        }),
        columns::text("Last Schedule", "Time since it was last due.", |it, printing| {
            let last = it.status.as_ref().and_then(|it| it.last_schedule_time.as_ref());
            last.map_or(NONE.to_owned(), |it| meta::age(Some(meta::timestamp_of(it)), printing.now))
                .into()
        }),
        age(),
        templated::containers(),
        templated::images(),
        templated::selector(),
    ];

    fn default(&mut self) {
        let spec = &mut self.spec;
        fill(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        // A Job's own defaults wait for the Job.
        job::default_rules(spec.job_template.spec.get_or_insert_default());
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(CronJobStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &CronJob) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &CronJob) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        if spec.schedule.is_empty() {
            errors.required("spec.schedule", "");
        }
        for (field, number) in [
            ("startingDeadlineSeconds", spec.starting_deadline_seconds),
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
        ] {
            names::not_negative(format!("spec.{field}"), number.unwrap_or(0), errors);
        }
        match text(&spec.concurrency_policy) {
            "Allow" | "Forbid" | "Replace" => {}
            "" => errors.required("spec.concurrencyPolicy", ""),
            policy => {
                let known = ["Allow", "Forbid", "Replace"];
                errors.not_supported("spec.concurrencyPolicy", policy, &known);
            }
        }
        validate_job(spec, errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_schedule(&self.spec, false, errors);
        validate_zone(&self.spec, errors);
        if self.name().len() > NAME_MOST {
            let detail = format!("must be no more than {NAME_MOST} characters");
            errors.invalid("metadata.name", quoted(self.name()), detail);
        }
    }

    fn validate_update(&self, old: &CronJob, errors: &mut Errors) {
        validate_schedule(&self.spec, names_zone(&old.spec.schedule), errors);
        if self.spec.time_zone != old.spec.time_zone {
            validate_zone(&self.spec, errors);
        }
    }

    fn warnings(&self, old: Option<&CronJob>) -> Vec<String> {
        let of_name = templated::name_warning(self, old);
        let mut warnings: Vec<String> =
            of_name.into_iter().chain(templated::warnings(self, old)).collect();
        let grows = old.is_none_or(|it| it.metadata.generation != self.metadata.generation);
        let job = self.spec.job_template.spec.as_ref().filter(|_| grows);
        warnings.extend(job.and_then(|it| job::much("spec.jobTemplate.spec", it)));
        if old.is_some() && names_zone(&self.spec.schedule) {
            warnings.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        warnings
    }
}

/// When the CronJob is due. A time zone in the schedule itself goes before the one beside it.
pub fn schedule_of(spec: &CronJobSpec) -> Result<Schedule, ScheduleError> {
    let name = text(&spec.time_zone);
    // Without a zone that we know, upstream falls back on its own, which is UTC.
    let zone = schedule::zone(name).unwrap_or(jiff::tz::TimeZone::UTC);
    Schedule::parse(&spec.schedule, zone)
}

/// Whether a schedule begins with a time zone, as was never promised and once worked.
pub fn names_zone(schedule: &str) -> bool {
    schedule.contains("TZ")
}

/// `2026-11-21T06:00:00+01:00`: a moment as the clocks of the CronJob's time zone show it.
pub fn local_text(spec: &CronJobSpec, at: stdx::Timestamp) -> String {
    let zone = schedule::zone(text(&spec.time_zone)).unwrap_or(jiff::tz::TimeZone::UTC);
    let offset = jiff::Timestamp::from_second(at.seconds()).map(|it| zone.to_offset(it));
    match offset {
        Ok(offset) if offset.is_zero() => at.rfc3339(),
        Err(_) => at.rfc3339(),
        Ok(offset) => {
            let moment = jiff::Timestamp::from_second(at.seconds()).unwrap_or_default();
            let local = offset.to_datetime(moment).strftime("%Y-%m-%dT%H:%M:%S").to_string();
            let minutes = offset.seconds() / 60;
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        }
    }
}

/// `Sat, 21 Nov 2026 10:00:00 +0000`: a moment as mails write it.
pub fn mail_text(at: stdx::Timestamp) -> String {
    let moment = jiff::Timestamp::from_second(at.seconds()).unwrap_or_default();
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn validate_schedule(spec: &CronJobSpec, may_name_zone: bool, errors: &mut Errors) {
    let (path, schedule) = ("spec.schedule", &spec.schedule);
    if schedule.is_empty() {
        return;
    }
    if let Err(error) = Schedule::parse(schedule, jiff::tz::TimeZone::UTC) {
        errors.invalid(path, quoted(schedule), error);
    }
    if names_zone(schedule) && !may_name_zone {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(path, quoted(schedule), detail);
    } else if names_zone(schedule) && spec.time_zone.is_some() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.invalid(path, quoted(schedule), detail);
    }
}

fn validate_zone(spec: &CronJobSpec, errors: &mut Errors) {
    let Some(zone) = &spec.time_zone else { return };
    let path = "spec.timeZone";
    if zone.is_empty() {
        errors.invalid(path, "\"\"", "timeZone must be nil or non-empty string");
        return;
    }
    let fits = |part: &str| {
        let known = |it: u8| it.is_ascii_alphanumeric() || b".-_+".contains(&it);
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=ZONE_PART_MOST).contains(&part.len())
            && part.bytes().all(known)
    };
    if !zone.split('/').all(fits) {
        errors.invalid(path, quoted(zone), format!("unknown time zone {zone}"));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, quoted(zone), detail);
    }
    if let Err(error) = schedule::zone(zone)
        && zone != "Local"
    {
        errors.invalid(path, quoted(zone), error);
    }
}

/// The Jobs to be made; who counts their pods is not the author's to say.
fn validate_job(spec: &CronJobSpec, errors: &mut Errors) {
    let job = spec.job_template.spec.clone().unwrap_or_default();
    let mut found = Errors::default();
    job::validate_spec(&job, &mut found);
    for mut error in found.0 {
        error.path = format!("spec.jobTemplate.{}", error.path);
        errors.0.push(error);
    }
    if let Some(selector) = &job.selector {
        let shown = serde_json::to_string(selector).expect("selectors are plain data");
        let path = "spec.jobTemplate.spec.selector";
        errors.invalid(path, shown, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        let path = "spec.jobTemplate.spec.manualSelector";
        let detail = "supported values: \"nil\", \"false\"";
        errors.push(crate::field::Reason::NotSupported, path, Some("true".to_owned()), detail);
    }
}

impl Templated for CronJob {
    const PATH: &'static str = "spec.jobTemplate.spec.template";

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.job_template.spec.as_ref()?.template)
    }

    fn own_pods(&self) -> Selector {
        let job = self.spec.job_template.spec.as_ref();
        Selector::of(job.and_then(|it| it.selector.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn cron_job(name: &str, changes: &Value) -> CronJob {
        let mut spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {
            "spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "busybox"}]}}}}});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let metadata = json!({"name": name, "namespace": "ns"});
        let mut it: CronJob = from_value(&json!({"metadata": metadata, "spec": spec})).unwrap();
        Kind::default(&mut it);
        it.prepare_create();
        Kind::default(&mut it);
        it
    }

    #[track_caller]
    fn check(changes: &Value, expected: &str) {
        let mut errors = Errors::default();
        let it = cron_job("backup", changes);
        it.validate(&mut errors);
        it.validate_create(&mut errors);
        assert_eq!(errors.message(), expected);
    }

    #[test]
    fn a_plain_one_is_fine_and_shows_itself() {
        check(&json!({}), "");
        let shown =
            "backup | */5 * * * * | <none> | False | 0 | <none> | <unknown> | c | busybox | <none>";
        assert_eq!(row(&cron_job("backup", &json!({}))), shown);
        let spec = cron_job("backup", &json!({})).spec;
        assert_eq!(spec.successful_jobs_history_limit, Some(3));
        assert_eq!(spec.failed_jobs_history_limit, Some(1));
        assert_eq!(spec.job_template.spec.unwrap().backoff_limit, None, "a Job's own default");
    }

    #[test]
    fn a_schedule_and_a_time_zone_must_be_known() {
        check(
            &json!({"schedule": "error"}),
            "spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]",
        );
        check(&json!({"schedule": ""}), "spec.schedule: Required value");
        check(
            &json!({"schedule": "TZ=UTC 0 * * * *"}),
            "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
        check(&json!({"timeZone": "Europe/Berlin"}), "");
        for zone in ["Amerika/New_York", "../etc", "America//X"] {
            let expected =
                format!("spec.timeZone: Invalid value: \"{zone}\": unknown time zone {zone}");
            check(&json!({"timeZone": zone}), &expected);
        }
        check(
            &json!({"timeZone": "Local"}),
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }

    #[test]
    fn what_is_wrong_with_the_job_is_told_at_its_place() {
        check(
            &json!({"concurrencyPolicy": "Sometimes", "jobTemplate": {"spec": {"parallelism": -1,
                "template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "c", "image": "busybox"}]}}}}}),
            "[spec.concurrencyPolicy: Unsupported value: \"Sometimes\": supported values: \"Allow\", \"Forbid\", \"Replace\", spec.jobTemplate.spec.parallelism: Invalid value: -1: must be greater than or equal to 0]",
        );
    }

    #[test]
    fn an_old_schedule_with_a_time_zone_may_stay() {
        let old = cron_job("old", &json!({"schedule": "TZ=Asia/Tokyo 0 5 * * *"}));
        let mut errors = Errors::default();
        old.clone().validate_update(&old, &mut errors);
        assert_eq!(errors.message(), "");
        assert_eq!(old.warnings(Some(&old)).len(), 1);
    }

    #[test]
    fn its_name_leaves_room_for_the_minute() {
        let mut errors = Errors::default();
        cron_job(&"a".repeat(53), &json!({})).validate_create(&mut errors);
        assert!(errors.message().ends_with("must be no more than 52 characters"));
    }

    #[test]
    fn a_moment_is_written_as_the_zones_clocks_show_it() {
        let at = stdx::Timestamp::from_seconds(1_795_255_200);
        let text = |zone: &str| {
            let spec = CronJobSpec { time_zone: Some(zone.to_owned()), ..CronJobSpec::default() };
            local_text(&spec, at)
        };
        assert_eq!(mail_text(at), "Sat, 21 Nov 2026 10:00:00 +0000");
        assert_eq!(text("Etc/UTC"), "2026-11-21T10:00:00Z");
        assert_eq!(text("Asia/Kolkata"), "2026-11-21T15:30:00+05:30");
        assert_eq!(text("America/New_York"), "2026-11-21T05:00:00-05:00");
    }
}
