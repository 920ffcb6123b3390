"""What COCO 2014, AttnGAN's lists and Karpathy's split are published as."""

from mmbench.data.archives import Archive

FOLDERS = ("train2014", "val2014")
IMAGE_TERMS = "each photograph under its own Flickr licence, see `licenses` in the annotations"

ARCHIVES: tuple[Archive, ...] = (
    Archive(
        "train2014.zip",
        "http://images.cocodataset.org/zips/train2014.zip",
        13_510_573_713,
        "0da8c0bd3d6becc4dcb32757491aca88",
        IMAGE_TERMS,
        ("train2014",),
    ),
    Archive(
        "val2014.zip",
        "http://images.cocodataset.org/zips/val2014.zip",
        6_645_013_297,
        "a3d79f5ed8d289b7a7554ce06a5782b3",
        IMAGE_TERMS,
        ("val2014",),
    ),
    Archive(
        "annotations_trainval2014.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        252_872_794,
        "0a379cfc70b0e71301e0f377548639bd",
        "CC BY 4.0",
        tuple(f"annotations/{kind}_{folder}.json" for kind in ("captions", "instances") for folder in FOLDERS),
    ),
    Archive(
        "coco.zip",
        "gdrive:1rSnbIGNDGZeHlsUlLdahj0RJ9oo6lgH9",
        None,
        None,
        "none stated",
        ("coco/train/filenames.pickle", "coco/test/filenames.pickle"),
        optional=True,
    ),
    Archive(
        "caption_datasets.zip",
        "http://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        None,
        None,
        "none stated",
        ("dataset_coco.json",),
        optional=True,
    ),
)
