"""What Caltech-UCSD Birds 200-2011, its captions and its segmentations are published as."""

from mmbench.data.archives import Archive

TERMS = "none stated; photographs from Flickr, rights with the photographers: non-commercial research"

ARCHIVES: tuple[Archive, ...] = (
    Archive(
        "CUB_200_2011.tgz",
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        1_150_585_339,
        "97eceeb196236b17998738112f37df78",
        TERMS,
        ("CUB_200_2011",),
        sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
    Archive(
        "cvpr2016_cub.tar.gz",
        "gdrive:0B0ywwgffWnLLZW9uVHNjb2JmNlE?resourcekey=0-8y2UVmBHAlG26HafWYNoFQ",
        None,
        None,
        "none stated",
        ("text_c10",),
    ),
    Archive(
        "segmentations.tgz",
        "gdrive:1EamOKGLoTuZdtcVYbHMWNpkn3iAVj8TP",
        39_272_883,
        "4d47ba1228eae64f2fa547c47bc65255",
        TERMS,
        ("segmentations",),
        sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
        optional=True,
    ),
)
