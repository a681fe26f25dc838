//! The description of this interface, made from the handlers and the types that travel.

use bulkhead_api::document::{ApiError, Document, WatchEvent};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Bulkhead registry", description = "Sites, hosts, tenants and leases of a fleet."),
    paths(
        super::healthz,
        super::sites::list, super::sites::get, super::sites::put, super::sites::delete,
        super::sites::join_ticket,
        super::hosts::list, super::hosts::get, super::hosts::delete,
        super::tenants::list, super::tenants::get, super::tenants::put, super::tenants::delete,
        super::leases::list, super::leases::get, super::leases::put, super::leases::delete,
        super::fit::post, super::log::get, super::ask::get, super::ask::post,
    ),
    components(schemas(ApiError, Document, WatchEvent)),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Description;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// OpenAPI 3.1.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
