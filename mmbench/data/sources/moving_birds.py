"""What videos of moving toy birds are packed as; nobody publishes them."""

from mmbench.data.archives import Archive

ARCHIVES: tuple[Archive, ...] = (
    Archive(
        "moving_birds.zip",
        "nowhere: drawn by data.source=toy",
        None,
        None,
        "none",
        ("videos", "masks", "videos.jsonl"),
    ),
)
