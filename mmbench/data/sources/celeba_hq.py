"""What CelebAMask-HQ, its captions and the split of Multi-Modal-CelebA-HQ are published as."""

from mmbench.data.archives import Archive

TERMS = "non-commercial research only, no redistribution"

ARCHIVES: tuple[Archive, ...] = (
    # About 3 GB. One loader states an md5, of its own copy: nobody says that the authors' is the same file.
    Archive(
        "CelebAMask-HQ.zip",
        "gdrive:1badu11NqxGf6qM3PTTooQDJvQbejgbTv",
        None,
        None,
        TERMS,
        (
            "CelebAMask-HQ/CelebA-HQ-img",
            "CelebAMask-HQ/CelebAMask-HQ-mask-anno",
            "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt",
            "CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt",
        ),
    ),
    Archive(
        "celeba-caption.zip",
        "gdrive:1LTBpJ0W_WLjqza3zdayligS8Dh1V1gA6",
        None,
        None,
        TERMS,
        ("celeba-caption",),
    ),
    # Both are published as `filenames.pickle`, in folders `train` and `test`.
    Archive(
        "mm_celeba_train_filenames.pickle",
        "gdrive:1GdeTdBpi_IV7AuBpJAhLElqjswRmOy-7",
        None,
        None,
        TERMS,
        ("mm_celeba_train_filenames.pickle",),
        optional=True,
    ),
    Archive(
        "mm_celeba_test_filenames.pickle",
        "gdrive:1JNxgdvPMI_HHUq2-JUuJp8L7cD-74OAf",
        None,
        None,
        TERMS,
        ("mm_celeba_test_filenames.pickle",),
        optional=True,
    ),
)
