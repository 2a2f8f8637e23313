"""The configuration of the feedback loop."""

from pydantic import Field

from parkway.core.configuration import Section


class FeedbackConfig(Section):
    """How requests are logged, and for how long.

    Attributes:
        queue_size: Records that may wait for the store; one more is shed and counted, the request is not touched.
        batch_size: Records that one transaction writes.
        flush_interval_s: The longest that a record waits while the store is well.
        retention_days: Requests and their feedback are removed when they are older than this.
    """

    queue_size: int = Field(default=10_000, ge=1, le=1_000_000)
    batch_size: int = Field(default=500, ge=1, le=10_000)
    flush_interval_s: float = Field(default=0.2, gt=0, le=60)
    retention_days: int = Field(default=90, ge=1, le=36_500)
