use pillarbox_core::Registry;

/// A registry with every store and transport whose feature is on. Add your own with
/// [`with_storage`](Registry::with_storage) and [`with_transport`](Registry::with_transport).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let registry = pillarbox::registry();
/// let storage = registry.storage("memory:").await?;
/// let transport = registry.transport("stdout:").await?;
/// # drop((storage, transport));
/// # Ok::<(), pillarbox::Error>(())
/// # }).unwrap();
/// ```
pub fn registry() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "memory")]
    let registry =
        registry.with_storage(pillarbox_memory::DRIVER).with_transport(pillarbox_memory_transport::DRIVER);
    #[cfg(feature = "redis")]
    let registry = registry.with_storage(pillarbox_redis::DRIVER);
    #[cfg(feature = "sqlite")]
    let registry = registry.with_storage(pillarbox_sql::SQLITE);
    #[cfg(feature = "postgres")]
    let registry = registry.with_storage(pillarbox_sql::POSTGRES);
    #[cfg(feature = "mysql")]
    let registry = registry.with_storage(pillarbox_sql::MYSQL);
    #[cfg(feature = "mongodb")]
    let registry = registry.with_storage(pillarbox_mongodb::DRIVER);
    #[cfg(feature = "rabbitmq")]
    let registry = registry.with_transport(pillarbox_rabbitmq::DRIVER);
    #[cfg(feature = "redis-streams")]
    let registry = registry.with_transport(pillarbox_redis_streams::DRIVER);
    #[cfg(feature = "http")]
    let registry = registry.with_transport(pillarbox_http::DRIVER);
    #[cfg(feature = "nats")]
    let registry = registry.with_transport(pillarbox_nats::DRIVER);
    #[cfg(feature = "kafka")]
    let registry = registry.with_transport(pillarbox_kafka::DRIVER);
    registry
        .with_absent("memory", "memory")
        .with_absent("stdout", "memory")
        .with_absent("redis", "redis")
        .with_absent("rediss", "redis")
        .with_absent("sqlite", "sqlite")
        .with_absent("postgres", "postgres")
        .with_absent("postgresql", "postgres")
        .with_absent("mysql", "mysql")
        .with_absent("mariadb", "mysql")
        .with_absent("mongodb", "mongodb")
        .with_absent("mongodb+srv", "mongodb")
        .with_absent("amqp", "rabbitmq")
        .with_absent("amqps", "rabbitmq")
        .with_absent("https", "http")
        .with_absent("http", "http")
        .with_absent("nats", "nats")
        .with_absent("kafka", "kafka")
        .with_absent("tls", "nats")
        .with_absent_transport("redis", "redis-streams")
        .with_absent_transport("rediss", "redis-streams")
}
