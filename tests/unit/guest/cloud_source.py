"""What the programs beside it give cloud-init, which Debian's own python3 runs, as the place that user-data comes from."""


class Source:
    """A data source that has its name and vendor-data."""

    def get_instance_id(self) -> str:
        return "i"

    def get_config_obj(self) -> dict[str, object]:
        return {}

    def get_vendordata_raw(self) -> str:
        return "some"

    def get_vendordata(self) -> str:
        return "some"
