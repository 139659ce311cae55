"""What comes with a question: files, folders and pages, and passages of searched documents."""
