//! REST under `/api/v1`, health, metrics and the status page.

mod acknowledged;
mod audit;
mod auth;
mod backups;
mod changes;
mod conflicts;
mod constraints;
mod dead_letters;
mod devices;
mod errors;
mod etag;
mod fleet;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod health;
mod lines;
mod measured;
mod page;
mod problem;
mod replay;
mod retire;
mod server;
mod span;
mod subject;
mod tokens;
mod tree;
mod writes;

use std::sync::{Arc, OnceLock};

use actors::supervise::{CrashJournal, Rules, TreeView};
use axum::Router;
use axum::middleware;
use axum::routing::get;
#[cfg(feature = "chaos")]
use axum::routing::post;
use telemetry::Meters;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::backup::Backups;
use crate::clock::SystemClock;
use crate::consistency::Findings;
use crate::devices::Devices;
use crate::errors::Errors;
use crate::identity::Identity;
use crate::link::{Accounts, Presence};
use crate::metrics::Metrics;
use crate::store::Store;

pub use acknowledged::Level;
pub use auth::{LoginCode, new_api_token};
pub use backups::BackupList;
pub use changes::{ChangeEvent, ChangeFeed};
pub use conflicts::{ConflictView, DeltaView, PolicyView};
pub use constraints::ConstraintsView;
pub use dead_letters::{DeadLetterContent, DeadLetterView};
pub use devices::{DeviceDetail, DeviceList, DeviceSummary, EntryAccount, HistoryPage};
pub use fleet::FleetLine;
pub use groups::{GroupView, MemberView, NewGroup};
pub use problem::Problem;
pub use replay::{ReplayLine, Verdict};
pub use retire::TombstoneView;
pub use server::{ApiArgs, ApiMsg, ApiServer};
pub use tokens::{NewToken, TokenRequest};
pub use tree::Quarantined;
pub use writes::WriteAnswer;

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    /// The store.
    pub store: Store,
    /// The twins.
    pub devices: Devices,
    /// The supervision tree.
    pub tree: TreeView,
    /// The rules of the tree, once it is made.
    pub rules: Arc<OnceLock<Vec<Rules>>>,
    /// What failed.
    pub crashes: CrashJournal,
    /// Who the brain is.
    pub identity: Arc<Identity>,
    /// SHA-256 of the TLS authority, for enrolment tokens.
    pub tls_ca_sha256: [u8; 32],
    /// The time.
    pub clock: SystemClock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where that is read.
    pub meters: Meters,
    /// What became of the entries of each device.
    pub accounts: Accounts,
    /// Which devices are connected.
    pub presence: Presence,
    /// Changes of states as they are committed.
    pub changes: ChangeFeed,
    /// Which trees are not what their histories come to.
    pub findings: Findings,
    /// What the brain noticed by itself.
    pub errors: Errors,
    /// Who makes backups.
    pub backups: Backups,
    /// The one-time code of the page, where one was given out.
    pub login: Arc<LoginCode>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Fleet brain",
    description = "State, history and desired state of a fleet's devices."
))]
struct ApiDoc;

/// Every route.
pub fn router(api: Api) -> Router {
    let (protected, mut document) = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(devices::list))
        .routes(routes!(devices::show, retire::retire_device))
        .routes(routes!(devices::state))
        .routes(routes!(devices::history))
        .routes(routes!(devices::versions))
        .routes(routes!(replay::replay))
        .routes(routes!(devices::snapshots, writes::create_snapshot))
        .routes(routes!(writes::set_desired, writes::patch_desired))
        .routes(routes!(writes::save_state))
        .routes(routes!(writes::restore))
        .routes(routes!(writes::patch_tags))
        .routes(routes!(fleet::state))
        .routes(routes!(conflicts::delta))
        .routes(routes!(conflicts::explain))
        .routes(routes!(conflicts::list))
        .routes(routes!(conflicts::show))
        .routes(routes!(conflicts::policy, conflicts::set_policy))
        .routes(routes!(groups::list))
        .routes(routes!(groups::show, groups::create, retire::delete_group))
        .routes(routes!(groups::add_member, groups::remove_member))
        .routes(routes!(groups::state))
        .routes(routes!(groups::patch_shared))
        .routes(routes!(groups::history))
        .routes(routes!(groups::explain))
        .routes(routes!(groups::conflicts))
        .routes(routes!(groups::policy, groups::set_policy))
        .routes(routes!(changes::events))
        .routes(routes!(health::consistency))
        .routes(routes!(audit::list))
        .routes(routes!(audit::check))
        .routes(routes!(backups::list, backups::create))
        .routes(routes!(backups::fetch))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(constraints::show, constraints::set))
        .routes(routes!(constraints::show_group, constraints::set_group))
        .routes(routes!(tree::show))
        .routes(routes!(tree::policies))
        .routes(routes!(tree::events))
        .routes(routes!(tree::restart))
        .routes(routes!(tree::kill))
        .routes(routes!(tree::quarantine))
        .routes(routes!(tree::release))
        .routes(routes!(tree::dead))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::show, dead_letters::discard))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(tree::crashes))
        .routes(routes!(errors::list))
        .routes(routes!(errors::show))
        .routes(routes!(errors::events))
        .routes(routes!(health::metrics))
        .split_for_parts();
    #[cfg(feature = "chaos")]
    let protected = protected.route("/api/v1/tree/{path}/chaos/{fault}", post(tree::chaos));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    let noted = middleware::from_fn_with_state(api.clone(), audit::note);
    let protected = protected
        .layer(noted.clone())
        .layer(middleware::from_fn_with_state(api.clone(), auth::require_token));
    let (open, open_document) = OpenApiRouter::new()
        .routes(routes!(auth::log_in))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .split_for_parts();
    document.merge(open_document);
    let open = open.layer(noted);
    let docs = SwaggerUi::new("/api/v1/docs").url("/api/v1/openapi.json", document);
    Router::new()
        .merge(protected)
        .merge(open)
        .merge(docs)
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/app.css", get(page::style))
        .fallback(problem::no_route)
        .layer(middleware::from_fn(problem::in_request))
        .layer(middleware::from_fn(page::security_headers))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.metrics.clone(), measured::measure))
        .with_state(api)
}
