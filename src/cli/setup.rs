//! `auditferry setup`: prepares a collector.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{CommandError, ConfigFiles, Ended, runtime};
use crate::config::Config;
use crate::output::elastic;
use crate::output::elastic::setup::{Call, Product, Setup, Target};

#[derive(Debug, Subcommand)]
pub(super) enum SetupCommand {
    /// Index templates for Elasticsearch or OpenSearch: prints the calls, or makes them (--apply)
    #[command(
        after_help = "Holds for indices that are made from then on; those that exist keep their mapping."
    )]
    Elastic(ElasticArgs),
}

#[derive(Args, Debug)]
pub(super) struct ElasticArgs {
    #[command(flatten)]
    files: ConfigFiles,
    /// Name of the output [default: the only one of type elastic]
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Make the calls, with the output's address and credentials
    #[arg(long)]
    apply: bool,
    /// Which server it is [default: the one that answers; elasticsearch where nothing is asked]
    #[arg(long, value_enum)]
    product: Option<Product>,
    /// Prepare a data stream [default: where `index` holds no {event_date}]
    #[arg(long, conflicts_with = "plain_index")]
    data_stream: bool,
    /// Prepare indices
    #[arg(long)]
    plain_index: bool,
}

pub(super) fn run(command: &SetupCommand, out: &mut impl Write) -> Result<Ended, CommandError> {
    let SetupCommand::Elastic(args) = command;
    // What it reads from need not be there yet.
    let config = args.files.read()?;
    let name = output_name(&config, args.output.as_deref())?;
    let located = |error| config.output_error(&name, &error);
    let settings = config.outputs.get(&name).ok_or_else(|| config.no_such_output(&name))?;
    let setup = Setup::new(settings.table.clone(), settings.context(&name)).map_err(located)?;
    let target = match (args.data_stream, args.plain_index) {
        (true, _) => Target::DataStream,
        (_, true) => Target::Index,
        _ => setup.likely_target(),
    };
    if args.apply {
        return runtime()?.block_on(async {
            let product = match args.product {
                Some(product) => product,
                None => setup.product().await?,
            };
            for call in setup.calls(product, target).map_err(located)? {
                setup.put(&call).await?;
                writeln!(out, "put {}", call.path)?;
            }
            Ok(Ended::Well)
        });
    }
    let product = args.product.unwrap_or(Product::Elasticsearch);
    let (this, other) = match product {
        Product::Elasticsearch => ("Elasticsearch", "--product opensearch for OpenSearch"),
        Product::Opensearch => ("OpenSearch", "--product elasticsearch for Elasticsearch"),
    };
    writeln!(out, "# For {this} ({other}). Nothing is done yet: --apply makes these calls.")?;
    for Call { path, body } in setup.calls(product, target).map_err(located)? {
        writeln!(out, "\nPUT {path}\n{body}")?;
    }
    Ok(Ended::Well)
}

/// The output to prepare.
fn output_name(config: &Config, wanted: Option<&str>) -> Result<String, CommandError> {
    let of_elastic: Vec<&str> = config
        .outputs
        .iter()
        .filter(|(_, settings)| settings.kind.name == elastic::KIND.name)
        .map(|(name, _)| name.as_str())
        .collect();
    match (wanted, of_elastic.as_slice()) {
        (Some(name), known) if known.contains(&name) => Ok(name.to_owned()),
        (None, [name]) => Ok((*name).to_owned()),
        (_, []) => Err("no output is of type elastic".into()),
        (_, known) => {
            Err(format!("name one of the outputs of type elastic: --output {}", known.join(" | ")).into())
        }
    }
}
