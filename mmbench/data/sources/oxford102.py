"""What Oxford-102 Flowers, its captions and its segmentations are published as."""

from mmbench.data.archives import Archive

TERMS = "none stated; mostly images from the web, some watermarked: non-commercial research"
ORIGIN = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"

ARCHIVES: tuple[Archive, ...] = (
    Archive(
        "102flowers.tgz",
        f"{ORIGIN}102flowers.tgz",
        344_862_509,
        "52808999861908f626f3c1f4e79d11fa",
        TERMS,
        ("jpg",),
    ),
    Archive(
        "imagelabels.mat",
        f"{ORIGIN}imagelabels.mat",
        502,
        "e0620be6f572b9609742df49c70aed4d",
        TERMS,
        ("imagelabels.mat",),
    ),
    Archive(
        "setid.mat",
        f"{ORIGIN}setid.mat",
        14_989,
        "a5357ecc9cb78c4bef273ce3793fc85c",
        TERMS,
        ("setid.mat",),
    ),
    Archive(
        "cvpr2016_flowers.tar.gz",
        "gdrive:0B0ywwgffWnLLcms2WWJQRFNSWXM?resourcekey=0-Av8zFbeDDvNcF1sSjDR32w",
        None,
        None,
        "none stated",
        ("text_c10",),
    ),
    Archive(
        "102segmentations.tgz",
        f"{ORIGIN}102segmentations.tgz",
        203_577_493,
        "51375996b6c4f367a4b9f4492d7ecef5",
        TERMS,
        ("segmim",),
        optional=True,
    ),
)
