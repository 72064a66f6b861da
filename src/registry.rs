//! The table of components. Everything that lists them (configuration, schema, reference, tests) iterates it.

use crate::component::BuildError;
use crate::format::canonical::Canonical;
use crate::format::ecs::Ecs;
use crate::format::ocsf::Ocsf;
use crate::format::raw::Raw;
use crate::format::sumo::Sumo;
use crate::format::{Format, FormatName, OcsfVersion};
use crate::input::{self, InputKind};
use crate::kafka;
use crate::output::{self, OutputKind};

/// The inputs, by the value of `type`.
pub const INPUTS: &[InputKind] =
    &[input::bucket::KIND, input::kafka::EVENT_HUBS, input::kafka::KAFKA, input::system_table::KIND];

/// The outputs, by the value of `type`.
pub const OUTPUTS: &[OutputKind] = &[
    output::splunk_hec::KIND,
    output::sumo::KIND,
    output::elastic::KIND,
    output::datadog::KIND,
    output::sentinel::KIND,
    output::otlp::KIND,
    output::loki::KIND,
    output::google_secops::KIND,
    output::kafka::KIND,
    output::http::KIND,
    output::file::KIND,
];

/// Why this build cannot run a type of input or output, if it cannot: a part that it needs was left out.
pub fn lacking(kind: &str) -> Option<BuildError> {
    let of_kafka = [input::kafka::EVENT_HUBS.name, input::kafka::KAFKA.name, output::kafka::KIND.name];
    (cfg!(not(feature = "kafka")) && of_kafka.contains(&kind)).then(kafka::missing)
}

/// What the formats can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatOptions {
    /// Whether `ecs` carries the record as it was as `event.original`.
    pub event_original: bool,
    /// The release of OCSF that `ocsf` writes.
    pub ocsf_version: OcsfVersion,
}

/// The format of this name.
pub fn format(name: FormatName, options: FormatOptions) -> Box<dyn Format> {
    match name {
        FormatName::Canonical => Box::new(Canonical),
        FormatName::Sumo => Box::new(Sumo),
        FormatName::Ecs => Box::new(Ecs { original: options.event_original }),
        FormatName::Ocsf => Box::new(Ocsf { version: options.ocsf_version }),
        FormatName::Raw => Box::new(Raw),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_can_be_fed_as_it_says() {
        let inputs: BTreeSet<_> = INPUTS.iter().map(|kind| kind.name).collect();
        let outputs: BTreeSet<_> = OUTPUTS.iter().map(|kind| kind.name).collect();
        assert_eq!((inputs.len(), outputs.len()), (INPUTS.len(), OUTPUTS.len()));
        for kind in OUTPUTS {
            let defaults = &kind.defaults;
            assert!(defaults.compressions.contains(&defaults.compression), "{}", kind.name);
            if let Some(most) = defaults.most {
                let events = most.events.unwrap_or(usize::MAX);
                assert!(defaults.max_bytes <= most.bytes && defaults.max_events <= events, "{}", kind.name);
            }
            assert!(
                defaults.max_bytes > 0 && defaults.max_events > 0 && defaults.in_flight > 0,
                "{}",
                kind.name
            );
        }
    }
}
