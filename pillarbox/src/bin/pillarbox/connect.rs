use crate::arguments::StorageArguments;
use crate::failure::Failure;
use pillarbox::{Admin, AnyStorage, OpenedStorage, Storage as _};

/// Opens the storage that the arguments name.
pub(crate) async fn storage(arguments: &StorageArguments) -> Result<OpenedStorage, Failure> {
    let scheme = arguments.storage.split(':').next().unwrap_or_default();
    if is_within_one_process(scheme) {
        return Err(Failure::misconfigured(
            "the storage `memory:` lives within one process, and no other program could put anything into this one's; \
             choose a store such as `redis://localhost/`",
        ));
    }
    Ok(pillarbox::registry().open_storage(&arguments.storage).await?)
}

/// Whether another program could never see what is put into such a store.
pub(crate) fn is_within_one_process(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("memory")
}

/// The storage's administration.
pub(crate) fn admin(storage: &AnyStorage) -> Result<&dyn Admin, Failure> {
    storage.admin().ok_or_else(|| Failure::misconfigured("this storage offers no way to look into it"))
}
