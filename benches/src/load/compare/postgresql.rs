//! PostgreSQL: state and history in two tables, both in one statement.

use std::rc::Rc;

use tokio_postgres::{Client, Config, NoTls, Statement};

use super::lanes::{Lane, Lanes, PRINCIPAL, REASON, Update};
use super::server::Server;
use crate::load::{Settings, Shape, Workspace};

const TABLES: &str = "
    CREATE TABLE state (
        device bigint, leaf text, value text NOT NULL, version bigint NOT NULL,
        PRIMARY KEY (device, leaf));
    CREATE TABLE history (
        device bigint, version bigint, leaf text NOT NULL, value text NOT NULL,
        at_ms bigint NOT NULL, principal text NOT NULL, reason text NOT NULL,
        PRIMARY KEY (device, version))";

const WRITE: &str = "
    WITH changed AS (
        INSERT INTO state (device, leaf, value, version) VALUES ($1, $3, $4, $2)
        ON CONFLICT (device, leaf)
        DO UPDATE SET value = excluded.value, version = excluded.version)
    INSERT INTO history (device, version, leaf, value, at_ms, principal, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// A place on a device's connection.
pub(super) struct PostgresqlLane {
    connection: Rc<(Client, Statement)>,
}

/// Starts the server, makes its tables and connects the devices.
pub(super) fn start(
    settings: &Settings,
    workspace: &Workspace,
    shape: Shape,
) -> anyhow::Result<Lanes<PostgresqlLane>> {
    let server = Server::start("postgresql", workspace.next("postgresql"))?;
    Lanes::connect(server, settings, shape, async |server, device| {
        let client = connect(server).await?;
        if device == 0 {
            client.batch_execute(TABLES).await?;
        }
        let statement = client.prepare(WRITE).await?;
        let connection = Rc::new((client, statement));
        let lane = || PostgresqlLane { connection: connection.clone() };
        Ok((0..shape.in_flight).map(|_| lane()).collect())
    })
}

async fn connect(server: &Server) -> anyhow::Result<Client> {
    let mut config = Config::new();
    config.host(server.address.ip().to_string()).port(server.address.port());
    config.user("bench").dbname("postgres");
    // It listens before it takes connections.
    let mut tries = 0;
    let (client, connection) = loop {
        match config.connect(NoTls).await {
            Ok(connected) => break connected,
            Err(error) if tries == 100 => return Err(error.into()),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    tokio::task::spawn_local(async move {
        // What goes wrong there, the statements on this connection say as well.
        let _ = connection.await;
    });
    Ok(client)
}

impl Lane for PostgresqlLane {
    async fn write(&mut self, update: Update) -> anyhow::Result<()> {
        let Update { device, version, leaf, value, at_ms } = update;
        let (client, statement) = &*self.connection;
        let (device, leaf) = (device as i64, leaf.as_str());
        client
            .execute(statement, &[&device, &version, &leaf, &value, &at_ms, &PRINCIPAL, &REASON])
            .await?;
        Ok(())
    }
}
